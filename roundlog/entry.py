"""One stored round as it is read from the log: bytes that are not parsed yet. Knows nothing of NATS."""

from typing import NamedTuple


class LogEntry(NamedTuple):
    """One stored round as the log holds it."""

    sequence: int
    game: str
    data: bytes
