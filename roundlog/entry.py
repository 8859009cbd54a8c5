"""One stored round, as it is read from the log: bytes that nobody has parsed yet."""

from typing import NamedTuple


class LogEntry(NamedTuple):
    """One stored round as the log holds it."""

    sequence: int
    game: str
    data: bytes
