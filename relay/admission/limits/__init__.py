"""Limits: how much one key and one client address may use, on this relay and on all of them together."""
