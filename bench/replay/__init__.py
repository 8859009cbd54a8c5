"""How fast history is read and how little live links, memory and NATS feel of it: ``python -m bench.replay``."""
