"""Make rounds with positions of a stream of WAL frames, and decide how far the server may forget.

Pure: frames in, items out; no I/O, no clock. Owns the promise that no transaction is confirmed in part, and that a
stream begun again goes on where the last one broke off, within a transaction too. Why so: docs/postgres-replication.md
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from backends.contract import Captured, Rejected, SourceError
from backends.postgres.mapping import Row, RowMapper
from backends.postgres.options import PostgresOptions
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
    """An offset in the write-ahead log of one server. Positions grow, also across a change of server."""

    generation: int
    """Grows when the server's history has changed, by a failover for example: then LSNs start anew."""
    lsn: int
    """The end of a transaction all of whose rounds come at or before this offset."""


Item = Captured[WalOffset] | Rejected[WalOffset]


class ColumnMissing(SourceError):
    """The table does not have a column that the options name. Nothing of it has been passed over."""

    def __init__(self, table: str, column: str, option: str, present: Sequence[str]) -> None:
        super().__init__(table, column, option, present)
        self.table, self.column, self.option, self.present = table, column, option, tuple(present)

    def __str__(self) -> str:
        return (
            f"table {self.table} has no column {self.column!r} in what it publishes; it has {', '.join(self.present)};"
            f" set the option {self.option!r}"
        )


class TableRenamed(Exception):
    """The table of rounds goes by another name now: rows that go on into it are not ours, and others may be."""

    def __init__(self, table: str, now: str) -> None:
        super().__init__(table, now)
        self.table, self.now = table, now

    def __str__(self) -> str:
        return f"table {self.table} was renamed to {self.now}"


class _Unmappable(NamedTuple):
    row: Row
    reason: str


class _Columns(NamedTuple):
    """Where the columns of a round stand in a row of the table as it is now."""

    width: int
    offsets: tuple[int | None, ...]  # in the order of mapping.FIELDS; None: no such column

    def pick(self, values: Sequence[bytes | None], errors: str = "strict") -> Row:
        if len(values) != self.width:
            raise InvalidMessage(f"a row of {len(values)} values in a table of {self.width} columns")
        return Row(
            *[
                None if offset is None or (value := values[offset]) is None else value.decode("utf-8", errors)
                for offset in self.offsets
            ]
        )


def columns_of(options: PostgresOptions, names: Sequence[str]) -> _Columns:
    """Find the columns of a round among a table's; raise `ColumnMissing`."""
    offsets: list[int | None] = []
    for option in _COLUMN_OPTIONS:
        name = getattr(options, option)
        wanted = name or "game_type"
        if wanted in names:
            offsets.append(names.index(wanted))
        elif name is None:
            offsets.append(None)  # the catalogue knows the type
        else:
            raise ColumnMissing(options.table, name, option, names)
    return _Columns(len(names), tuple(offsets))


_COLUMN_OPTIONS: Final = (
    "round_id_column",
    "game_slug_column",
    "game_type_column",
    "finished_at_column",
    "extras_column",
)


class Capture:
    """Follows one slot over any number of streams.

    The rows of a transaction carry the offset before it, the last one that after it: one row is held back until it
    is known whether it is the last.
    """

    def __init__(self, options: PostgresOptions, catalogue: Catalogue) -> None:
        self._options = options
        self._table = (options.schema_name, options.table_name)
        self._mapper = RowMapper(catalogue, options.table)
        self._columns: dict[int, _Columns] = {}  # by relation id; only the table of rounds
        self._relation: int | None = None  # the id of the table of rounds, in all streams of this history
        self._before = WalOffset(0, 0)  # the end of the last transaction that was yielded whole
        self._confirmed = self._before
        self._idle_lsn = 0  # everything committed before this has been sent, and none of it came after _before
        self._received = 0
        self._transaction: Begin | None = None
        self._timestamp_ms = 0
        self._held: Round | _Unmappable | None = None
        self._yielded = 0  # rows of the open transaction, by this stream or passed over in it
        self._skip = 0  # rows of the open transaction to pass over, since an earlier stream yielded them
        self._half: tuple[int, int] | None = None  # a transaction broken off: its commit LSN, and the rows yielded

    # --- where the stream is ------------------------------------------------------------------------------------

    @property
    def start_lsn(self) -> int:
        """Where a stream has to start so that nothing is missed: transactions that end at or before it are skipped."""
        return self._before.lsn

    @property
    def stored_lsn(self) -> int:
        """Up to where all that held rounds is stored."""
        return self._confirmed.lsn

    @property
    def generation(self) -> int:
        """That of the positions that mean something now."""
        return self._before.generation

    @property
    def received_lsn(self) -> int:
        """How far the server's log has been received, rounds or not."""
        return self._received

    @property
    def confirmed_lsn(self) -> int:
        """Up to where the server may forget: what is stored, or all that was sent when nothing else is under way.

        Without the second, the log of a busy server with an idle table would never shrink, and a fast shutdown of the
        server would wait for ever.
        """
        if self._transaction is None and self._confirmed >= self._before:
            return max(self._confirmed.lsn, self._idle_lsn)
        return self._confirmed.lsn

    @property
    def idle(self) -> bool:
        """Whether all that was yielded is confirmed and no transaction is half received."""
        return self._transaction is None and self._half is None and self._confirmed >= self._before

    @property
    def last_commit_ms(self) -> int:
        """When the newest transaction received was committed, Unix milliseconds; 0: none yet."""
        return self._timestamp_ms

    def confirm(self, offset: WalOffset) -> None:
        """Take note that everything up to `offset` is safe. Those of an earlier history mean nothing any more."""
        if offset.generation == self._before.generation:
            self._confirmed = max(self._confirmed, offset)

    def begin_history(self, lsn: int) -> None:
        """Start at `lsn` of a server that is new to us: the first, or one after a failover."""
        self._before = self._confirmed = WalOffset(self._before.generation + 1, lsn)
        self._idle_lsn = self._received = lsn
        self._half = self._relation = None
        self.begin_stream()

    def skip_to(self, lsn: int) -> None:
        """Another reader of the slot has seen to everything up to `lsn`."""
        if lsn > self._before.lsn:
            self._before = self._confirmed = WalOffset(self._before.generation, lsn)
            self._half = None

    def begin_stream(self) -> None:
        """Get ready for a stream from `start_lsn`; the one before may have broken off anywhere."""
        if self._transaction is not None and (yielded := self._yielded + self._skip):
            self._half = (self._transaction.commit_lsn, yielded)
        self._transaction = self._held = None
        self._yielded = self._skip = 0
        self._columns.clear()

    # --- frames -------------------------------------------------------------------------------------------------

    def feed(self, frames: Iterable[bytes]) -> tuple[list[Item], bool]:
        """Take frames in the order of their arrival; return the items, and whether the server asks for a reply.

        Raises:
            InvalidMessage: A frame is not what a walsender with pgoutput sends.
            ColumnMissing: The table of rounds has changed so that its rows cannot be read.
            TableRenamed: It has been given another name.
        """
        out: list[Item] = []
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

    def _on_row(self, columns: _Columns, values: Sequence[bytes | None], out: list[Item]) -> None:
        if self._transaction is None:
            raise InvalidMessage("a row outside of a transaction")
        if self._skip:
            self._skip -= 1
            self._yielded += 1
            return
        if self._held is not None:
            out.append(self._item(self._held, self._before))
            self._yielded += 1
        try:
            row = columns.pick(values)
            self._held = self._mapper.to_round(row, self._timestamp_ms)
        except InvalidRound as error:
            self._held = _Unmappable(row, str(error))
        except UnicodeDecodeError as error:
            self._held = _Unmappable(columns.pick(values, "replace"), f"the row is not UTF-8: {error.reason}")

    def _on_other(self, message: object, out: list[Item]) -> None:
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
                if (message.schema, message.table) == self._table:
                    self._columns[message.id] = columns_of(self._options, message.columns)
                    self._relation = message.id
                elif message.id == self._relation:
                    raise TableRenamed(self._options.table, f"{message.schema}.{message.table}")
                else:
                    self._columns.pop(message.id, None)
            case LogicalMessage(transactional=False):
                self._on_sent(message.lsn)

    def _on_commit(self, commit: Commit, out: list[Item]) -> None:
        if self._transaction is None or self._transaction.commit_lsn != commit.commit_lsn:
            raise InvalidMessage("the end of a transaction that did not begin")
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

    def _item(self, held: Round | _Unmappable, offset: WalOffset) -> Item:
        if isinstance(held, Round):
            return Captured(held, offset)
        return self._mapper.reject(held.row, held.reason, offset)
