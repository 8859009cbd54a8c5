"""Clients of every protocol, as our pages describe them: they keep their cursor and come back with it."""
