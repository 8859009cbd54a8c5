"""Commands of a client of the public API: ``tail``, ``replay``, ``history``, ``export``."""
