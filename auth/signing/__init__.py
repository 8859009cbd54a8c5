"""Signing: the keys that sign and verify tokens, and how signed JSON is read."""
