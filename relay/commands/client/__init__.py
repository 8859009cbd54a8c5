"""The commands ``tail``, ``replay``, ``history`` and ``export``: a client of the public API."""
