"""Frames as a walsender with pgoutput sends them, for tests that need no server."""

import struct
from collections.abc import Sequence

from backends.postgres.replication.protocol.pgoutput import EPOCH_US, UNCHANGED

TABLE = 16384
COLUMNS = ("round_id", "game_slug", "game_type", "finished_at", "extras")
COMMIT_MS = 1_768_730_430_125


def data(message: bytes) -> bytes:
    return struct.pack(">cQQq", b"w", 0, 0, 0) + message


def keepalive(wal_end: int, *, reply: bool = False) -> bytes:
    return struct.pack(">cQqB", b"k", wal_end, 0, reply)


def begin(commit_lsn: int, commit_ms: int = COMMIT_MS) -> bytes:
    return data(struct.pack(">cQqI", b"B", commit_lsn, commit_ms * 1000 - EPOCH_US, 7))


def commit(commit_lsn: int, end_lsn: int | None = None) -> bytes:
    return data(struct.pack(">cBQQq", b"C", 0, commit_lsn, end_lsn or commit_lsn + 8, 0))


def relation(
    oid: int = TABLE, name: str = "public.rounds", columns: tuple[str, ...] = COLUMNS, identity: str = "d"
) -> bytes:
    schema, table = name.split(".")
    head = struct.pack(">cI", b"R", oid) + f"{schema}\0{table}\0".encode()
    return data(
        head
        + struct.pack(">cH", identity.encode(), len(columns))
        + b"".join(b"\0" + column.encode() + b"\0" + struct.pack(">Ii", 25, -1) for column in columns)
    )


Value = str | bytes | None


def insert(*values: Value, oid: int = TABLE) -> bytes:
    return data(struct.pack(">cI", b"I", oid) + _tuple(b"N", values))


def update(old: Sequence[Value] | None, new: Sequence[Value], *, oid: int = TABLE, kind: bytes = b"O") -> bytes:
    """An update; a new value that is `UNCHANGED` is not sent."""
    before = b"" if old is None else _tuple(kind, old)
    return data(struct.pack(">cI", b"U", oid) + before + _tuple(b"N", new))


def delete(old: Sequence[Value], *, oid: int = TABLE, kind: bytes = b"O") -> bytes:
    return data(struct.pack(">cI", b"D", oid) + _tuple(kind, old))


def truncate(*oids: int) -> bytes:
    return data(struct.pack(f">cIB{len(oids)}I", b"T", len(oids), 0, *oids))


def _tuple(kind: bytes, values: Sequence[Value]) -> bytes:
    parts = [kind + struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            raw = value.encode() if isinstance(value, str) else value
            parts.append(b"t" + struct.pack(">I", len(raw)) + raw)
    return b"".join(parts)


def row(round_id: int, game: str = "crash") -> bytes:
    """An insert of one good row into the table of rounds."""
    return insert(str(round_id), game, "multiplier", "2026-01-18 10:00:30.125+00", '{"point": "2.50"}')


def message(lsn: int, prefix: str = "stream-relay", content: bytes = b"", *, transactional: bool = False) -> bytes:
    head = struct.pack(">cBQ", b"M", transactional, lsn) + prefix.encode() + b"\0"
    return data(head + struct.pack(">I", len(content)) + content)


def transaction(commit_lsn: int, *round_ids: int) -> list[bytes]:
    return [begin(commit_lsn), *map(row, round_ids), commit(commit_lsn)]
