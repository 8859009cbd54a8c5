"""The head of a request that is written as nearly all clients write it, read without a parser of HTTP. Pure.

Owns which heads those are: HTTP/1.1, each field once, printable ASCII, no body, nothing after it. All others are left
to aiohttp's parser: where two parsers could read one request differently, only one reads it.
"""

import re
from typing import Final, NamedTuple, Self

_BYTES: Final = 4 << 10
"""The longest head that is read: far below the limits of aiohttp's parser."""
_HEAD: Final = re.compile(
    r"(GET|POST) ((?:/[A-Za-z0-9_-]+)+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n)+)\r\n", re.ASCII
)
_FIELD: Final = re.compile(r"([^:]+):([^\r]*)\r\n")
_UNUSUAL: Final = frozenset({"expect", "te", "trailer", "transfer-encoding", "upgrade"})


class PlainHead(NamedTuple):
    """Such a head."""

    method: str
    path: str
    fields: dict[str, str]
    """By name in lower case."""

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Read a request that is all of `data`; None when its head is not plain, or not whole."""
        if len(data) > _BYTES or not data.isascii():
            return None
        found = _HEAD.fullmatch(data.decode("ascii"))
        if found is None:
            return None
        method, path, lines = found.groups()
        fields: dict[str, str] = {}
        for name, value in _FIELD.findall(lines):
            fields[name.lower()] = value.strip("\t ")
        if len(fields) != lines.count("\r\n") or "host" not in fields or not fields.keys().isdisjoint(_UNUSUAL):
            return None
        is_last = fields.get("connection", "keep-alive").lower() != "keep-alive"
        return None if is_last or fields.get("content-length", "0") != "0" else cls(method, path, fields)
