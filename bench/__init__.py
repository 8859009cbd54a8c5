"""Benchmarks: each module prints a table, and is run by ``python -m bench`` or by its own name."""
