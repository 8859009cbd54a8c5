"""Identities: the JWTs of an operator's own identity provider, what is checked of them, and what they grant."""
