"""Streams of small records beside the log: what was changed by whom, and what keys use."""
