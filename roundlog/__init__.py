"""The log of rounds: one JetStream stream. The only room that imports nats-py."""
