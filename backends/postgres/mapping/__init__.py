"""The mapping from rows of any table to rounds: its options, its conditions, and what a change of a row means."""
