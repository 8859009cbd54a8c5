"""Benchmarks check every byte that they measure. This is what they check it with."""
