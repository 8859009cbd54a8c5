"""Recordings: files of rounds. Finds them, decompresses them, and parses their lines into items with offsets."""
