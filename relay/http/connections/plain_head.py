"""The head of a request that is written as nearly all clients write it, read without a parser of HTTP. Pure.

Owns which heads those are: HTTP/1.1, each field once, printable ASCII, no body, nothing after it; a query of names and
values that mean themselves; an upgrade to WebSocket alone. All others are left to aiohttp's parser: where two parsers
could read one request differently, only one reads it.
"""

import re
from typing import Final, NamedTuple, Self

from relay.http.connections.malformed import HEADERS

_BYTES: Final = 4 << 10
"""The longest head that is read: far below the limits of aiohttp's parser."""
_KNOWN_BYTES: Final = 1 << 10
"""The longest head that is remembered."""
_MOST_KNOWN: Final = 1024
"""Heads that are remembered: 4 MB at most, with what was read of them."""
_HEAD: Final = re.compile(
    r"(?:(GET) ((?:/[A-Za-z0-9_-]+)+)(?:\?([A-Za-z_]+=[A-Za-z0-9._,:-]*(?:&[A-Za-z_]+=[A-Za-z0-9._,:-]*)*))?"
    r"|(POST) ((?:/[A-Za-z0-9_-]+)+)) "
    r"HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n)+)\r\n",
    re.ASCII,
)
_FIELD: Final = re.compile(r"([^:]+):([^\r]*)\r\n")
_UNUSUAL: Final = frozenset({"expect", "te", "trailer", "transfer-encoding"})


class PlainHead(NamedTuple):
    """Such a head."""

    method: str
    path: str
    fields: dict[str, str]
    """By name in lower case."""
    query: str = ""
    """Without its question mark."""
    upgrades: bool = False
    """Whether it asks for an upgrade to WebSocket."""

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Read a request that is all of `data`; None when its head is not plain, or not whole."""
        if len(data) > _BYTES or not data.isascii():
            return None
        found = _HEAD.fullmatch(data.decode("ascii"))
        if found is None:
            return None
        get, got, query, post, posted, lines = found.groups()
        fields = {name.lower(): value.strip("\t ") for name, value in _FIELD.findall(lines)}
        if len(fields) != lines.count("\r\n") or "host" not in fields or not fields.keys().isdisjoint(_UNUSUAL):
            return None
        if len(fields) > HEADERS:
            return None
        upgrades = "upgrade" in fields
        if upgrades and not (get and _upgrades(fields)):
            return None
        if not upgrades and fields.get("connection", "keep-alive").lower() != "keep-alive":
            return None
        if fields.get("content-length", "0") != "0":
            return None
        return cls(get or post, got or posted, fields, query or "", upgrades)

    @property
    def target(self) -> str:
        """The path and the query as they were sent."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def parameters(self) -> list[tuple[str, str]]:
        """Return the parameters of the query, in their order."""
        pairs = (piece.partition("=") for piece in self.query.split("&")) if self.query else ()
        return [(name, value) for name, _, value in pairs]


class KnownHeads:
    """Reads heads, and remembers those of requests: most clients send the same bytes each time.

    Not those of streams: each has a token or a key of its own.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, PlainHead] = {}  # in the order in which they came

    def __len__(self) -> int:
        return len(self._heads)

    def read(self, data: bytes) -> PlainHead | None:
        """Do as `PlainHead.read`."""
        known = self._heads.get(data)
        if known is not None:
            return known
        head = PlainHead.read(data)
        if head is not None and len(data) <= _KNOWN_BYTES and head.path.startswith("/api/"):
            if len(self._heads) >= _MOST_KNOWN:
                del self._heads[next(iter(self._heads))]
            self._heads[data] = head
        return head


def _upgrades(fields: dict[str, str]) -> bool:
    connection = fields.get("connection", "").lower().replace(" ", "").split(",")
    return "upgrade" in connection and "close" not in connection and fields["upgrade"].lower() == "websocket"
