"""Corrections of rounds: which revision a change becomes, and which ones the log has."""
