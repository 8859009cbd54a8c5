"""Backfill: reading the rows that tables have, and publishing what the log lacks of them."""
