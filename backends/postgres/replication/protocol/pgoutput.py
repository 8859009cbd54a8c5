"""Decode the messages of the output plugin pgoutput, protocol version 1.

Pure: bytes in, values out. Any bytes either become a message or raise `InvalidMessage`. Knows nothing of the table of
rounds. Reference: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple

EPOCH_US: Final = 946_684_800_000_000
"""PostgreSQL's epoch, 2000-01-01, in Unix microseconds."""


class InvalidMessage(ValueError):
    """The bytes are not a message of pgoutput version 1."""


class Begin(NamedTuple):
    """The begin of a transaction. All of its rows come before its `Commit`; transactions come in commit order."""

    commit_lsn: int
    commit_us: int
    """The commit time, Unix microseconds."""
    xid: int


class Commit(NamedTuple):
    commit_lsn: int
    end_lsn: int
    """The LSN right after the transaction. It may be confirmed once all rows are stored."""
    commit_us: int


class Relation(NamedTuple):
    """The definition of a table. Sent before its first row, and again after it has changed."""

    id: int
    """The table's oid."""
    schema: str
    table: str
    columns: tuple[str, ...]
    types: tuple[int, ...]
    """The oids of the columns' types."""
    identity: str
    """What an update contains of the old row: ``f`` all of it, ``d`` the primary key, ``i`` the columns of an index,
    ``n`` nothing."""


class Insert(NamedTuple):
    relation: int
    values: Sequence[bytes | None]
    """The columns in the relation's order, as text; None is NULL."""


class Update(NamedTuple):
    relation: int
    old: Sequence[bytes | None] | None
    """The whole old row; None: the table's replica identity is not FULL."""
    values: Sequence[bytes | None]
    """The new row. A large value that was not changed is not sent: it is `UNCHANGED`, or taken from `old`."""


class Delete(NamedTuple):
    relation: int
    old: Sequence[bytes | None] | None
    """As in `Update`."""


class Truncate(NamedTuple):
    relations: tuple[int, ...]


class LogicalMessage(NamedTuple):
    """A message written with ``pg_logical_emit_message``."""

    transactional: bool
    lsn: int
    prefix: str
    content: memoryview
    """A view of the decoded bytes: nothing is copied, since the message may be that of another application. Empty if
    the content was dropped while it arrived: see `wire_reader`."""
    size: int
    """The size of the content as it was written, bytes."""


class Other(NamedTuple):
    """A message that has no row: a type, an origin."""

    kind: str


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | LogicalMessage | Other

UNCHANGED: Final = b"\0unchanged"
"""Stands for a value that the server did not send, since it is stored out of line and was not changed. Compare with
``is``; no text of PostgreSQL has a null byte."""

_BEGIN: Final = Struct(">xQqI")
_COMMIT: Final = Struct(">xBQQq")
_INSERT: Final = Struct(">xIcH")
_ROW: Final = Struct(">xIc")
_COUNT: Final = Struct(">H")
_TRUNCATE: Final = Struct(">xIB")
_RELATION: Final = Struct(">xI")
_REPLICA_IDENTITY: Final = Struct(">cH")
_COLUMN_TYPE: Final = Struct(">Ii")
_LOGICAL: Final = Struct(">xBQ")
_LENGTH: Final = Struct(">I")
_IGNORED: Final = frozenset(b"YO")

_NULL, _TEXT, _UNCHANGED = b"ntu"


def decode(data: bytes, start: int = 0) -> Message:
    """Decode the one message that `data` holds from `start` to its end.

    Raises:
        InvalidMessage: It is truncated, too long, or of a kind that version 1 does not have.
    """
    try:
        kind = data[start]
        if kind == 0x49:  # I
            return _insert(data, start)
        if kind == 0x55:  # U
            return _update(data, start)
        if kind == 0x42:  # B
            return _begin(data, start)
        if kind == 0x43:  # C
            return _commit(data, start)
        if (read := _RARER.get(kind)) is not None:
            return read(data, start)
    except (struct.error, IndexError):
        raise InvalidMessage(f"pgoutput message is truncated: {_shown(data, start)}") from None
    if kind in _IGNORED:
        return Other(chr(kind))
    raise InvalidMessage(f"pgoutput message of unknown kind {chr(kind)!r}: {_shown(data, start)}")


def _insert(data: bytes, at: int) -> Insert:
    relation, marker, count = _INSERT.unpack_from(data, at)
    if marker != b"N":
        raise InvalidMessage(f"pgoutput insert without a new row: {_shown(data, at)}")
    length_at = _LENGTH.unpack_from
    values: list[bytes | None] = []
    start, at = at, at + _INSERT.size
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            begin = at + 5
            at = begin + length_at(data, at + 1)[0]
            values.append(data[begin:at])
        elif kind == _NULL:
            values.append(None)
            at += 1
        else:
            # Unchanged TOAST values occur only in updates, binary values only on request.
            raise InvalidMessage(f"pgoutput insert with a value of kind {chr(kind)!r}: {_shown(data, start)}")
    if at != len(data):
        raise InvalidMessage(f"pgoutput insert ends at {at - start} of {len(data) - start}: {_shown(data, start)}")
    return Insert(relation, values)


def _update(data: bytes, start: int) -> Update:
    relation, marker = _ROW.unpack_from(data, start)
    at = start + _ROW.size
    old: list[bytes | None] | None = None
    if marker != b"N":
        if marker not in (b"O", b"K"):
            raise InvalidMessage(f"pgoutput update without a new row: {_shown(data, start)}")
        old, at = _values(data, start, at)
        if data[at] != 0x4E:  # N
            raise InvalidMessage(f"pgoutput update without a new row: {_shown(data, start)}")
        at += 1
        if marker == b"K":
            old = None
    values, at = _values(data, start, at)
    _expect_end(data, start, at)
    if UNCHANGED in values and old is not None and len(old) == len(values):
        values = [old[index] if value is UNCHANGED else value for index, value in enumerate(values)]
    return Update(relation, old, values)


def _delete(data: bytes, start: int) -> Delete:
    relation, marker = _ROW.unpack_from(data, start)
    if marker not in (b"O", b"K"):
        raise InvalidMessage(f"pgoutput delete without an old row: {_shown(data, start)}")
    old, at = _values(data, start, start + _ROW.size)
    _expect_end(data, start, at)
    return Delete(relation, old if marker == b"O" else None)


def _values(data: bytes, start: int, at: int) -> tuple[list[bytes | None], int]:
    """Read a row; return its values and where the next field starts."""
    length_at = _LENGTH.unpack_from
    values: list[bytes | None] = []
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            begin = at + 5
            at = begin + length_at(data, at + 1)[0]
            values.append(data[begin:at])
        elif kind == _NULL:
            values.append(None)
            at += 1
        elif kind == _UNCHANGED:
            values.append(UNCHANGED)
            at += 1
        else:
            raise InvalidMessage(f"pgoutput row with a value of kind {chr(kind)!r}: {_shown(data, start)}")
    if at > len(data):
        raise InvalidMessage(f"pgoutput row ends at {at - start} of {len(data) - start}: {_shown(data, start)}")
    return values, at


def _truncate(data: bytes, start: int) -> Truncate:
    count, _ = _TRUNCATE.unpack_from(data, start)
    _expect_end(data, start, start + _TRUNCATE.size + 4 * count)
    return Truncate(struct.unpack_from(f">{count}I", data, start + _TRUNCATE.size))


def _begin(data: bytes, at: int) -> Begin:
    _expect_end(data, at, at + _BEGIN.size)
    lsn, moment, xid = _BEGIN.unpack_from(data, at)
    return Begin(lsn, moment + EPOCH_US, xid)


def _commit(data: bytes, at: int) -> Commit:
    _expect_end(data, at, at + _COMMIT.size)
    _, lsn, end, moment = _COMMIT.unpack_from(data, at)
    return Commit(lsn, end, moment + EPOCH_US)


def _relation(data: bytes, start: int) -> Relation:
    (oid,) = _RELATION.unpack_from(data, start)
    schema, at = _text(data, start + _RELATION.size)
    table, at = _text(data, at)
    identity, count = _REPLICA_IDENTITY.unpack_from(data, at)
    at += _REPLICA_IDENTITY.size
    names, types = [], []
    for _ in range(count):
        name, at = _text(data, at + 1)
        names.append(name)
        types.append(_COLUMN_TYPE.unpack_from(data, at)[0])
        at += _COLUMN_TYPE.size
    _expect_end(data, start, at)
    # An empty schema name stands for pg_catalog.
    return Relation(oid, schema or "pg_catalog", table, tuple(names), tuple(types), identity.decode("latin-1"))


def _logical_message(data: bytes, start: int) -> LogicalMessage:
    flags, lsn = _LOGICAL.unpack_from(data, start)
    prefix, at = _text(data, start + _LOGICAL.size)
    begin = at + _LENGTH.size
    (size,) = _LENGTH.unpack_from(data, at)
    if len(data) > begin:
        _expect_end(data, start, begin + size)
    return LogicalMessage(bool(flags & 1), lsn, prefix, memoryview(data)[begin:], size)


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Read a null-terminated string; return it and where the next field starts."""
    end = data.find(b"\0", at)
    if end < 0:
        raise InvalidMessage(f"pgoutput message with an unterminated string: {_shown(data, at)}")
    # Names have the encoding of the database, which is not known here: no byte may be lost.
    return data[at:end].decode("utf-8", "surrogateescape"), end + 1


def _expect_end(data: bytes, start: int, end: int) -> None:
    if end != len(data):
        raise InvalidMessage(
            f"pgoutput message has {len(data) - start} bytes, not {end - start}: {_shown(data, start)}"
        )


def _shown(data: bytes, start: int) -> str:
    """The first 16 bytes of a message, for errors. The rest may contain customer data."""
    return data[start : start + 16].hex(" ")


_RARER: Final[Mapping[int, Callable[[bytes, int], Message]]] = {
    ord("R"): _relation,
    ord("M"): _logical_message,
    ord("D"): _delete,
    ord("T"): _truncate,
}
