"""Decompress request messages, up to a limit: a few bytes can decompress to gigabytes. Pure."""

import zlib
from typing import Final

from relay.errors import BadRequest, TooLarge

WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The window parameter of zlib by the name of an encoding; ``deflate`` has zlib's header (RFC 1950), as in gRPC."""
_MEMBERS: Final = 16
"""Of one message. Clients send one; each takes several microseconds and a copy of all that follows, also when empty."""


def decompressed(data: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a message with an encoding of `WINDOWS`.

    Raises:
        BadRequest: It is malformed or incomplete, or consists of more parts than a message needs.
        TooLarge: It has more than `limit` bytes, decompressed.
    """
    parts, room = list[bytes](), limit + 1
    while data:  # gzip may have several members (RFC 1952, section 2.2)
        if len(parts) == _MEMBERS:
            raise BadRequest(f"the message has more than {_MEMBERS} members of {encoding}; send it as one")
        inflater = zlib.decompressobj(wbits=WINDOWS[encoding])
        try:
            part = inflater.decompress(data, room)
        except zlib.error as error:
            raise BadRequest(f"the message is not {encoding}") from error
        room -= len(part)
        if room <= 0:
            raise TooLarge(limit)
        if not inflater.eof:
            raise BadRequest(f"the message is truncated {encoding}")
        parts.append(part)
        data = inflater.unused_data
    return b"".join(parts)
