"""Authentication and authorization: API keys, stream tokens, credentials of requests, and masking of secrets.

Imports no other package of this repository, and does no I/O.
"""
