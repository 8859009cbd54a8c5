"""The bytes of publishes: one HPUB command for each round, with its id, its condition and its offset.

Pure: no I/O. Knows nothing of what is sent again.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from roundlog.tail import OFFSET_HEADER

HEADER_ROOM: Final = 512
"""No round's headers are longer: two ids of at most 64 + 1 + 19 characters, an offset of 64, and their names."""


def offset_header(offset: bytes) -> bytes:
    """Write the header line with a round's offset in its source."""
    return b"%b:%b\r\n" % (OFFSET_HEADER.encode(), offset)


class Publish(NamedTuple):
    """One publish: its subject, the number of its ack, and its condition."""

    subject: bytes
    number: int
    msg_id: bytes
    expected: bytes | None  # the id that the log's newest message must have; None: any
    offset_header: bytes  # the header line with the round's offset in its source; empty: none
    data: bytes
    after: int | None = None  # the sequence that its subject's newest message must have, 0: it has none; None: any


def encode(publishes: Iterable[Publish], replies: Iterable[bytes]) -> bytes:
    """Render publishes as HPUB commands, one after another, each with its reply subject.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    parts = []
    for (subject, _, msg_id, expected, offset, data, after), reply in zip(publishes, replies, strict=True):
        if after is not None:
            offset = b"Nats-Expected-Last-Subject-Sequence:%d\r\n%b" % (after, offset)
        if expected is None:
            head = b"NATS/1.0\r\nNats-Msg-Id:%b\r\n%b\r\n" % (msg_id, offset)
        else:
            head = b"NATS/1.0\r\nNats-Msg-Id:%b\r\nNats-Expected-Last-Msg-Id:%b\r\n%b\r\n" % (msg_id, expected, offset)
        size = len(head)
        parts.append(b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(data), head, data))
    return b"".join(parts)
