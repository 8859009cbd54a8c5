"""The feed: a table that triggers fill with the rounds of captured tables, for both backends."""
