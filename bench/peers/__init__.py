"""A relay beside other servers, which benchmarks build as Go modules. ``python -m bench.peers``."""
