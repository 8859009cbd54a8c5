"""Admission: who may open a link, how many fit, and what a request asks for."""
