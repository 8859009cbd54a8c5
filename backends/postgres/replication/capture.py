"""Turn WAL frames into rounds with offsets, and decide up to where the server may remove WAL.

Pure: frames in, items out; no I/O, no clock. Owns the promise that no transaction is confirmed in part, and that a new
stream continues where the last one broke, also within a transaction. Why so: docs/postgres-replication.md
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backends.contract import Captured, Rejected
from backends.postgres.encodings import UTF_8, readable_name, why_not_text
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.table_mapper import ColumnMissing as ColumnMissing
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.protocol.pgoutput import (
    Begin,
    Commit,
    Insert,
    InvalidMessage,
    LogicalMessage,
    Relation,
    decode,
)
from backends.postgres.replication.protocol.wal import DATA_START, KEEPALIVE, XLOG_DATA, parse_keepalive
from rounds import Catalogue, InvalidRound, Round


class WalOffset(NamedTuple):
    """An offset in the write-ahead log of one server. Offsets grow, also across a change of server."""

    generation: int
    """Grows when the server's history changes, for example by a failover: LSNs of two histories are not comparable."""
    lsn: int
    """The end of a transaction; all of its rounds have this offset or a lower one."""


WalItem = Captured[WalOffset] | Rejected[WalOffset]


class TableRenamed(Exception):
    """The table of rounds was renamed: its new rows are not ours, and a new table may have its name."""

    def __init__(self, table: str, now: str) -> None:
        super().__init__(table, now)
        self.table, self.now = table, now

    def __str__(self) -> str:
        return f"table {self.table} was renamed to {self.now}"


class _Unmappable(NamedTuple):
    mapper: TableMapper
    row: Row
    reason: str


class _Columns(NamedTuple):
    """What is read of a row of the table."""

    width: int
    mapper: TableMapper

    def pick(self, values: Sequence[bytes | None], codec: str, errors: str = "strict") -> Row:
        if len(values) != self.width:
            raise InvalidMessage(f"a row of {len(values)} values in a table of {self.width} columns")
        return [
            None if (value := values[index]) is None else value.decode(codec, errors) for index in self.mapper.indexes
        ]


class Capture:
    """Reads one slot over any number of streams.

    The rows of a transaction carry the offset before it, and the last row the one after it. So one row is held until
    the next message shows whether it is the last.
    """

    def __init__(self, options: PostgresOptions, catalogue: Catalogue) -> None:
        self._options = options
        self._table = (options.schema_name, options.table_name)
        self._catalogue = catalogue
        self._columns: dict[int, _Columns] = {}  # by relation id; only the table of rounds
        self._relation: int | None = None  # the id of the table of rounds, in all streams of this history
        self._before = WalOffset(0, 0)  # the end of the last transaction whose rows were all yielded
        self._confirmed = self._before
        self._idle_lsn = 0  # up to here, nothing was committed after _before
        self._received = 0
        self._codec = UTF_8
        self._transaction: Begin | None = None
        self._timestamp_ms = 0
        self._held: Round | _Unmappable | None = None
        self._yielded = 0  # rows of the open transaction, yielded or skipped by this stream
        self._skip = 0  # rows of the open transaction that an earlier stream yielded
        self._half: tuple[int, int] | None = None  # an interrupted transaction: its commit LSN, and the rows yielded

    # --- where the stream is ------------------------------------------------------------------------------------

    @property
    def start_lsn(self) -> int:
        """Where a stream has to start: the server skips transactions that end at or before it."""
        return self._before.lsn

    @property
    def stored_lsn(self) -> int:
        """The end of the last transaction whose rounds are all stored."""
        return self._confirmed.lsn

    @property
    def generation(self) -> int:
        """The generation of valid offsets."""
        return self._before.generation

    @property
    def received_lsn(self) -> int:
        """How far the WAL has been received, with or without rounds."""
        return self._received

    @property
    def confirmed_lsn(self) -> int:
        """Up to where the server may remove WAL: what is stored, or all that was sent if no round is in flight.

        Without the latter, the WAL of a busy server with an idle table would grow without limit, and a fast shutdown of
        the server would never end.
        """
        if self._transaction is None and self._confirmed >= self._before:
            return max(self._confirmed.lsn, self._idle_lsn)
        return self._confirmed.lsn

    @property
    def idle(self) -> bool:
        """Whether all yielded rounds are confirmed and no transaction is received in part."""
        return self._transaction is None and self._half is None and self._confirmed >= self._before

    @property
    def last_commit_ms(self) -> int:
        """When the newest transaction received was committed, Unix milliseconds; 0: none yet."""
        return self._timestamp_ms

    def confirm(self, offset: WalOffset) -> None:
        """Record that everything up to `offset` is stored. Offsets of an earlier generation are ignored."""
        if offset.generation == self._before.generation:
            self._confirmed = max(self._confirmed, offset)

    def begin_history(self, lsn: int) -> None:
        """Start at `lsn` of a new history: at first, or after a failover."""
        self._before = self._confirmed = WalOffset(self._before.generation + 1, lsn)
        self._idle_lsn = self._received = lsn
        self._half = self._relation = None
        self.begin_stream()

    def skip_to(self, lsn: int) -> None:
        """Start at `lsn`: another reader of the slot has stored everything up to it."""
        if lsn > self._before.lsn:
            self._before = self._confirmed = WalOffset(self._before.generation, lsn)
            self._half = None

    def begin_stream(self, codec: str = UTF_8) -> None:
        """Prepare for a stream from `start_lsn`, with text in `codec`; the last one may have broken anywhere."""
        self._codec = codec
        if self._transaction is not None and (yielded := self._yielded + self._skip):
            self._half = (self._transaction.commit_lsn, yielded)
        self._transaction = self._held = None
        self._yielded = self._skip = 0
        self._columns.clear()

    # --- frames -------------------------------------------------------------------------------------------------

    def feed(self, frames: Iterable[bytes]) -> tuple[list[WalItem], bool]:
        """Process frames in the order of their arrival; return the items, and whether the server asks for a reply.

        Raises:
            InvalidMessage: A frame is not one that a walsender with pgoutput sends.
            ColumnMissing: A column of the table of rounds was renamed or dropped.
            TableRenamed: The table of rounds was renamed.
        """
        out: list[WalItem] = []
        reply_requested = False
        for frame in frames:
            kind = frame[0] if frame else 0
            if kind == XLOG_DATA:
                message = decode(frame, DATA_START)
                if type(message) is Insert:
                    columns = self._columns.get(message.relation)
                    if columns is not None:
                        self._on_row(columns, message.values, out)
                else:
                    self._on_other(message, out)
            elif kind == KEEPALIVE:
                wal_end, reply = parse_keepalive(frame)
                reply_requested |= reply
                self._on_sent(wal_end)
            else:
                raise InvalidMessage(f"replication frame of unknown kind: {frame[:16].hex(' ')}")
        return out, reply_requested

    def _on_row(self, columns: _Columns, values: Sequence[bytes | None], out: list[WalItem]) -> None:
        if self._transaction is None:
            raise InvalidMessage("a row outside a transaction")
        if self._skip:
            self._skip -= 1
            self._yielded += 1
            return
        if self._held is not None:
            out.append(self._item(self._held, self._before))
            self._yielded += 1
        try:
            row = columns.pick(values, self._codec)
            self._held = columns.mapper.to_round(row, self._timestamp_ms)
        except InvalidRound as error:
            self._held = _Unmappable(columns.mapper, row, str(error))
        except UnicodeDecodeError as error:
            replaced = columns.pick(values, self._codec, "replace")
            self._held = _Unmappable(columns.mapper, replaced, why_not_text(error, self._codec))

    def _on_other(self, message: object, out: list[WalItem]) -> None:
        match message:
            case Begin():
                if self._transaction is not None:
                    raise InvalidMessage("a transaction within a transaction")
                self._transaction = message
                self._timestamp_ms = max(0, message.commit_us // 1000)
                self._yielded = 0
                self._skip = self._half[1] if self._half and self._half[0] == message.commit_lsn else 0
            case Commit():
                self._on_commit(message, out)
            case Relation():
                message = _readable(message, self._codec)
                if (message.schema, message.table) == self._table:
                    names = [Column(name) for name in message.columns]
                    mapper = TableMapper(self._options, self._catalogue, names)
                    self._columns[message.id] = _Columns(len(names), mapper)
                    self._relation = message.id
                elif message.id == self._relation:
                    raise TableRenamed(self._options.table, f"{message.schema}.{message.table}")
                else:
                    self._columns.pop(message.id, None)
            case LogicalMessage(transactional=False):
                self._on_sent(message.lsn)

    def _on_commit(self, commit: Commit, out: list[WalItem]) -> None:
        if self._transaction is None or self._transaction.commit_lsn != commit.commit_lsn:
            raise InvalidMessage("the end of a transaction without its begin")
        self._transaction = None
        if self._held is not None:
            self._before = WalOffset(self._before.generation, commit.end_lsn)
            out.append(self._item(self._held, self._before))
            self._held = self._half = None
        self._on_sent(commit.end_lsn)

    def _on_sent(self, lsn: int) -> None:
        self._received = max(self._received, lsn)
        if self._transaction is None:
            self._idle_lsn = max(self._idle_lsn, lsn)

    def _item(self, held: Round | _Unmappable, offset: WalOffset) -> WalItem:
        if isinstance(held, Round):
            return Captured(held, offset)
        return held.mapper.reject(held.row, held.reason, offset)


def _readable(relation: Relation, codec: str) -> Relation:
    names = [readable_name(name, codec) for name in (relation.schema, relation.table, *relation.columns)]
    return relation._replace(schema=names[0], table=names[1], columns=tuple(names[2:]))
