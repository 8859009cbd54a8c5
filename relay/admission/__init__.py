"""Admission: which clients may open a link, how many links fit, and what a request asks for."""
