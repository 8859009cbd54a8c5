"""Connections that tests open, accept and forward. None of them is open when its block has ended."""
