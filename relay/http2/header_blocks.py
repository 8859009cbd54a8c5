"""Header blocks that we send (HPACK, RFC 7541), without state.

No field is put into the peer's table, so that equal headers are equal bytes on every connection: they are encoded once,
and a connection needs no encoder. Costs some 100 bytes more for each answer after the first of a connection.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from hpack.table import HeaderTable

HeaderFields = Sequence[tuple[bytes, bytes]]
"""Names and values of headers. Names are lower case; those that begin with a colon come first."""

NO_TABLE: Final = b"\x20"
"""Sets the size of our table to zero (section 6.3), at the start of the first block of a connection.

From then on no size that the peer allows is smaller, and no later block needs an update.
"""

_NAME: Final = re.compile(rb":?[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(rb"(?:[^\0\r\n\t ](?:[^\0\r\n]*[^\0\r\n\t ])?)?")

_FIELDS: Final = {field: number for number, field in reversed([*enumerate(HeaderTable.STATIC_TABLE, 1)])}
_NAMES: Final = {name: number for (name, _), number in _FIELDS.items()}


@lru_cache(maxsize=256)
def header_block(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Encode headers.

    Raises:
        ValueError: A name or value has bytes that HTTP/2 does not allow (RFC 9113 section 8.2.1).
    """
    return b"".join(_encoded(name, value) for name, value in fields)


def _encoded(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"header {name!r}: {value!r} is not allowed in HTTP/2")
    if (number := _FIELDS.get((name, value))) is not None:
        return _integer(number, 7, 0x80)
    if (number := _NAMES.get(name)) is not None:
        return _integer(number, 4, 0) + _text(value)
    return b"\0" + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    return _integer(len(value), 7, 0) + value


def _integer(value: int, bits: int, first: int) -> bytes:
    """Encode a number after the bits `first` (section 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((first | value,))
    value -= limit
    encoded = bytearray((first | limit,))
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
