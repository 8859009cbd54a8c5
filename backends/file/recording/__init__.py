"""Recordings: files of rounds, their formats, and how they are read."""
