"""The frames of streaming replication, and log sequence numbers. Pure.

Reference: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from struct import Struct
from typing import Final, NamedTuple

from backends.postgres.replication.protocol.pgoutput import EPOCH_US, InvalidMessage

XLOG_DATA: Final = ord("w")
"""First byte of a frame that carries a message of the output plugin."""
KEEPALIVE: Final = ord("k")
DATA_START: Final = 25
"""Where the plugin's message starts in an `XLOG_DATA` frame."""

_KEEPALIVE: Final = Struct(">xQqB")
_STATUS: Final = Struct(">cQQQqB")


class Keepalive(NamedTuple):
    """The server's progress. Everything committed before `wal_end` was sent before this frame."""

    wal_end: int
    reply_requested: bool


def parse_keepalive(frame: bytes) -> Keepalive:
    """Read a `KEEPALIVE` frame; raise `InvalidMessage` for anything else."""
    if len(frame) != _KEEPALIVE.size or frame[0] != KEEPALIVE:
        raise InvalidMessage(f"not a keepalive frame: {frame[:16].hex(' ')}")
    wal_end, _, reply = _KEEPALIVE.unpack(frame)
    return Keepalive(wal_end, bool(reply))


def status_update(*, received: int, confirmed: int, unix_us: int, want_reply: bool) -> bytes:
    """Write a frame that reports what was received, and up to where the server may remove WAL.

    `want_reply` requests an immediate reply.
    """
    return _STATUS.pack(b"r", received, confirmed, confirmed, unix_us - EPOCH_US, want_reply)


def format_lsn(lsn: int) -> str:
    """Write a log sequence number as PostgreSQL does: ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read ``16/B374D848``; raise `ValueError` for anything else."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} is not a log sequence number")
    return (int(high, 16) << 32) | int(low, 16)
