"""Fan-out: one relay on one core, thousands of links on the other, every byte verified. ``python -m bench.fanout``."""
