"""Answers that never change while the process runs: the bytes of pages and descriptions."""
