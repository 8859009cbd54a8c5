"""A connection to a NATS server: sign-in, requests, error codes, and the private parts of nats-py behind a guard."""
