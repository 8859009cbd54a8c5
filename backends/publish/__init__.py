"""Publish rounds to the log: in order, at least once, without duplicates."""
