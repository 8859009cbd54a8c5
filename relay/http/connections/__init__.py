"""Connections to the HTTP port: how they are accepted, and what a client may hold of one before it is a link."""
