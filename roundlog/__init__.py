"""The log of rounds: one JetStream stream, ``ROUNDS``. The only room that imports nats-py.

Owns the connection, the stream and its settings, publishing with acks, reading by pages, and following live. Knows
nothing of backends and clients.
"""
