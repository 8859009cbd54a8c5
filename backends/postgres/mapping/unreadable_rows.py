"""Remember which round a row was before it became one that cannot be read, so that it stays that round. Pure."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from backends.postgres.mapping.json_documents import Row
from rounds import Round

_MOST: Final = 10_000
"""Limit of remembered rows, about 1 kB each: they are mistakes of writers, and are mended or deleted."""


class UnreadableRows:
    """Rows that were rejected after they had been rounds, each with its last round.

    They are not forgotten when they are mended: a source may yield the same change again.
    """

    def __init__(self, most: int = _MOST) -> None:
        """Remember at most so many; the oldest are forgotten first."""
        self._rounds: OrderedDict[bytes, Round] = OrderedDict()
        self._most = most

    def add(self, table: str, row: Row, round_: Round) -> None:
        """Remember that a row of a table, as it is now, was a round."""
        key = _key(table, row)
        self._rounds[key] = round_
        self._rounds.move_to_end(key)
        if len(self._rounds) > self._most:
            self._rounds.popitem(last=False)

    def round_of(self, table: str, row: Row) -> Round | None:
        """Return the round that this row was; None: it was none, or is not remembered."""
        return self._rounds.get(_key(table, row)) if self._rounds else None


def _key(table: str, row: Row) -> bytes:
    return blake2b(repr((table, *row)).encode(errors="replace"), digest_size=16).digest()
