"""The faults, by the part that they hit: each begins, ends, and states what it allows."""
