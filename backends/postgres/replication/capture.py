"""Turn WAL frames into rounds with offsets, and decide up to where the server may remove WAL.

Pure: frames in, items out; no I/O, no clock. Owns the promise that no transaction is confirmed in part, and that a new
stream continues where the last one broke, also within a transaction. What a change of a row means is in
`rows.row_reader`. Why so: docs/postgres-replication.md
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from backends.contract import Captured, Rejected
from backends.postgres.encodings import UTF_8, readable_name
from backends.postgres.feed.feed_mapper import FeedMapper, FeedTables
from backends.postgres.mapping.column_kinds import Column, ColumnType
from backends.postgres.mapping.game_slugs import GameSlugs, UnknownGameKey
from backends.postgres.mapping.row_changes import Meaning, Outcome
from backends.postgres.mapping.table_mapper import ColumnMissing as ColumnMissing
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.protocol.pgoutput import (
    Begin,
    Commit,
    Delete,
    Insert,
    InvalidMessage,
    LogicalMessage,
    Message,
    Relation,
    Update,
    decode,
)
from backends.postgres.replication.protocol.wal import DATA_START, KEEPALIVE, XLOG_DATA, parse_keepalive
from backends.postgres.replication.rows.feed_row_reader import FeedRowReader
from backends.postgres.replication.rows.message_reader import MessageMapper, MessageReader
from backends.postgres.replication.rows.row_reader import (
    INSERTS_ONLY,
    Counters,
    OldRowMissing,
    Reopened,
    RowReader,
    Wanted,
)
from rounds import Catalogue, Round


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


class _UnknownTable(Exception):
    """A relation that is none of our tables, unless it has become a child of one since the stream began."""


class SourceTable(NamedTuple):
    """A table of rounds as the server's catalogue has it when a stream begins."""

    options: TableOptions
    relations: Mapping[int, str]
    """The table and its children by INHERITS: their names by oid, ``schema.table``."""
    wanted: Wanted = INSERTS_ONLY


class _Held(NamedTuple):
    outcome: Outcome
    mapper: TableMapper


class _Half(NamedTuple):
    """A transaction that was received in part."""

    commit_lsn: int
    rows: int  # changes of rows that were handled
    held: _Held | Round | None


class Capture:
    """Reads one slot over any number of streams.

    The rows of a transaction carry the offset before it, and the last row the one after it. So one round is held until
    the next one, or the end of the transaction, shows whether it is the last.
    """

    def __init__(
        self,
        options: PostgresOptions,
        catalogue: Catalogue,
        games: Mapping[str, GameSlugs] | None = None,
        counters: Counters | None = None,
        feed: FeedTables | None = None,
    ) -> None:
        """Prepare. `games`, by `TableOptions.source`, and `counters` may outlive this object.

        With `feed` the one table of the options is the feed, and these are the tables that fill it.
        """
        self._feed = feed
        self._options = options
        self._catalogue = catalogue
        self.counters = counters or Counters()
        """Rows that made no round."""
        self._reopened = Reopened()
        self._games = games or {table.source: GameSlugs(table, catalogue) for table in options.all_tables}
        self._own_types: Mapping[int, ColumnType] = {}
        self._by_name = {(table.schema_name, table.table_name): SourceTable(table, {}) for table in options.all_tables}
        self._by_oid: dict[int, SourceTable] = {}
        self._known: dict[int, str] = {}  # the names that relations of ours had in this history, by id
        self._readers: dict[int, RowReader] = {}  # by relation id; only the tables of rounds
        self._before = WalOffset(0, 0)  # the end of the last transaction whose rows were all yielded
        self._confirmed = self._before
        self._idle_lsn = 0  # up to here, nothing was committed after _before
        self._received = 0
        self._codec = UTF_8
        self.unknown_game: UnknownGameKey | None = None
        """The game that has to be looked up before `feed` can continue."""
        self.asks_for_tables = False
        """Whether `feed` stops at tables that are not known to be ours, see `unknown_table`."""
        self.unknown_table: int | None = None
        """The oid of the table that has to be looked up before `feed` can continue."""
        self._looked_up: int | None = None
        self._failure: Exception | None = None
        self._frames: list[bytes] = []  # received, and not processed yet
        self._transaction: Begin | None = None
        self._timestamp_ms = 0
        self._held: _Held | Round | None = None
        self._deleted: Delete | None = None  # the last change, if it may be the first half of a move
        self._rows = 0  # changes of rows in the open transaction that were handled, now or by an earlier stream
        self._skip = 0  # how many of them an earlier stream handled
        self._half: _Half | None = None
        self._prefix: str = getattr(options, "message_prefix", "")
        self._message_mapper: MessageMapper | None = None
        self._messages: MessageReader | None = None
        if self._prefix:
            own_games = self._games.get(options.source) or GameSlugs(options, catalogue)
            self._message_mapper = MessageMapper(self._prefix, options, catalogue, own_games)

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
        self._half = None
        self._known.clear()
        self.begin_stream()

    def skip_to(self, lsn: int) -> None:
        """Start at `lsn`: another reader of the slot has stored everything up to it."""
        if lsn > self._before.lsn:
            self._before = self._confirmed = WalOffset(self._before.generation, lsn)
            self._half = None

    def use_tables(self, tables: Sequence[SourceTable], own_types: Mapping[int, ColumnType] | None = None) -> None:
        """Take what the catalogue says of the tables, before a stream begins.

        A relation is known by its oid or by its name: rows from before a change of the catalogue come with the names of
        that time.
        """
        self._by_name = {(table.options.schema_name, table.options.table_name): table for table in tables}
        self._by_oid = {oid: table for table in tables for oid in table.relations}
        self._own_types = own_types or {}

    def begin_stream(self, codec: str = UTF_8) -> None:
        """Prepare for a stream from `start_lsn`, with text in `codec`; the last one may have broken anywhere."""
        self._codec = codec
        if self._transaction is not None and self._rows and not self._skip:
            self._half = _Half(self._transaction.commit_lsn, self._rows, self._held)
        self._transaction = self._held = self._deleted = None
        self._rows = self._skip = 0
        self._frames, self.unknown_game, self._failure = [], None, None
        self.unknown_table = self._looked_up = None
        self._readers.clear()
        if self._message_mapper is not None:
            self._messages = MessageReader(self._prefix, self._message_mapper, self.counters, codec=codec)

    # --- frames -------------------------------------------------------------------------------------------------

    @property
    def will_raise(self) -> bool:
        """Whether the next call of `feed` raises."""
        return self._failure is not None

    def feed(self, frames: Iterable[bytes]) -> tuple[list[WalItem], bool]:
        """Process frames in the order of their arrival; return the items, and whether the server asks for a reply.

        Stops before a row whose game is in no table that was read, see `unknown_game`, and before rows of a table that
        may be a new child of ours, see `unknown_table`; call it again, with no frames, when that was looked up. An
        error after the first item is raised by the next call: what came before it counts as yielded.

        Raises:
            InvalidMessage: A frame is not one that a walsender with pgoutput sends.
            ColumnMissing: A column of a table of rounds was renamed or dropped.
            TableRenamed: A table of rounds was renamed.
            OldRowMissing: A row was changed, and its old version is not known.
        """
        out: list[WalItem] = []
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        try:
            return out, self._process(frames, out)
        except (InvalidMessage, ColumnMissing, TableRenamed, OldRowMissing) as error:
            if not out:
                raise
            self._failure = error
            return out, False

    def _process(self, frames: Iterable[bytes], out: list[WalItem]) -> bool:
        reply_requested = False
        rest = iter([*self._frames, *frames] if self._frames else frames)
        self._frames, self.unknown_game = [], None
        self._looked_up, self.unknown_table = self.unknown_table, None
        for frame in rest:
            kind = frame[0] if frame else 0
            if kind == XLOG_DATA:
                message = decode(frame, DATA_START)
                try:
                    if type(message) is Insert or type(message) is Update:
                        reader = self._readers.get(message.relation)
                        if reader is not None and not self._on_plain_row(reader, message, out):
                            self._on_row(reader, message, out)
                    else:
                        self._on_other(message, out)
                except UnknownGameKey as error:
                    self.unknown_game, self._frames = error, [frame, *rest]
                except _UnknownTable:
                    self._frames = [frame, *rest]
            elif kind == KEEPALIVE:
                wal_end, reply = parse_keepalive(frame)
                reply_requested |= reply
                self._on_sent(wal_end)
            else:
                raise InvalidMessage(f"replication frame of unknown kind: {frame[:16].hex(' ')}")
        return reply_requested

    def _on_plain_row(self, reader: RowReader, message: Insert | Update, out: list[WalItem]) -> bool:
        """Handle what nearly all rows of a table without updates are; return False for any other change."""
        if not reader.is_plain or self._skip or self._deleted is not None or self._transaction is None:
            return False
        round_ = reader.plain_round(message.values, self._timestamp_ms) if type(message) is Insert else None
        if round_ is None:
            return False
        self._rows += 1
        held, self._held = self._held, round_
        if held is not None:
            out.append(Captured(held, self._before) if type(held) is Round else _item(held, self._before))
        return True

    def _on_row(self, reader: RowReader, message: Insert | Update | Delete, out: list[WalItem]) -> None:
        if self._transaction is None:
            raise InvalidMessage("a row outside a transaction")
        if self._skip:
            self._skip -= 1
            return
        if self._deleted is not None:
            if type(message) is Insert and reader.is_moved(self._deleted, message):
                outcomes = reader.replaced(self._deleted.old, message.values, self._timestamp_ms)
                self._deleted = None
                self._rows += 1
                self._on_outcomes(reader, outcomes, out)
                return
            self._on_deleted(out)
        if isinstance(message, Insert):
            self._on_outcomes(reader, reader.inserted(message, self._timestamp_ms), out)
        elif isinstance(message, Delete):
            self._deleted = message
        elif reader.wanted.updates:
            self._on_outcomes(reader, reader.replaced(message.old, message.values, self._timestamp_ms), out)
        else:
            self._rows += 1

    def _on_deleted(self, out: list[WalItem]) -> None:
        """Handle a delete that is not the first half of a move."""
        deleted = self._deleted
        if deleted is not None and (reader := self._readers.get(deleted.relation)) is not None:
            self._on_outcomes(reader, reader.deleted(deleted.old, self._timestamp_ms), out)
        self._deleted = None

    def _on_outcomes(self, reader: RowReader | MessageReader, outcomes: Sequence[Outcome], out: list[WalItem]) -> None:
        self._rows += 1
        for outcome in outcomes:
            if self._held is not None:
                out.append(_item(self._held, self._before))
            self._held = _Held(outcome, reader.mapper)

    def _on_other(self, message: Message, out: list[WalItem]) -> None:
        match message:
            case Begin():
                if self._transaction is not None:
                    raise InvalidMessage("a transaction within a transaction")
                self._transaction = message
                self._timestamp_ms = max(0, message.commit_us // 1000)
                self._rows = self._skip = 0
                half = self._half
                if half is not None and half.commit_lsn == message.commit_lsn:
                    self._rows, self._skip, self._held = half.rows, half.rows, half.held
            case Commit():
                self._on_commit(message, out)
            case Delete():
                reader = self._readers.get(message.relation)
                if reader is not None:
                    self._on_row(reader, message, out)
            case Relation():
                self._on_relation(message)
            case LogicalMessage():
                self._on_message(message, out)

    def _on_message(self, message: LogicalMessage, out: list[WalItem]) -> None:
        reader = self._messages
        if reader is None or message.prefix != reader.prefix:
            if not message.transactional:
                self._on_sent(message.lsn)
        elif not message.transactional:
            out += [_item(_Held(outcome, reader.mapper), self._before) for outcome in reader.written(message, 0)]
            self._on_sent(message.lsn)
        elif self._transaction is None:
            raise InvalidMessage("a transactional message outside a transaction")
        elif self._skip:
            self._skip -= 1
        else:
            self._on_deleted(out)
            self._on_outcomes(reader, reader.written(message, self._timestamp_ms), out)

    def _on_relation(self, relation: Relation) -> None:
        relation = _readable(relation, self._codec)
        name = f"{relation.schema}.{relation.table}"
        source = self._by_name.get((relation.schema, relation.table)) or self._by_oid.get(relation.id)
        if source is None:
            if (was := self._known.get(relation.id)) is not None:
                raise TableRenamed(was, name)
            if self.asks_for_tables and self._looked_up != relation.id:
                self.unknown_table = relation.id
                raise _UnknownTable
            self._looked_up = None
            self._readers.pop(relation.id, None)
            return
        if self._known.setdefault(relation.id, name) != name:
            # The next stream begins with the catalogue: if the table has its name again, its rows are ours.
            was, self._known[relation.id] = self._known[relation.id], name
            raise TableRenamed(was, name)
        columns = [Column(*column) for column in zip(relation.columns, relation.types, strict=True)]
        table = source.options
        mapper = (
            TableMapper(table, self._catalogue, columns, games=self._games.get(table.source), own_types=self._own_types)
            if self._feed is None
            else FeedMapper(self._feed, self._catalogue, columns)
        )
        make_reader = RowReader if self._feed is None else FeedRowReader
        self._readers[relation.id] = make_reader(
            mapper,
            relation.columns,
            source.wanted,
            name=name,
            corrections=self._options.corrections,
            codec=self._codec,
            counters=self.counters,
            reopened=self._reopened,
        )

    def _on_commit(self, commit: Commit, out: list[WalItem]) -> None:
        if self._transaction is None or self._transaction.commit_lsn != commit.commit_lsn:
            raise InvalidMessage("the end of a transaction without its begin")
        self._on_deleted(out)
        self._transaction = None
        if self._held is not None:
            self._before = WalOffset(self._before.generation, commit.end_lsn)
            out.append(_item(self._held, self._before))
            self._held = self._half = None
        self._rows = self._skip = 0
        self._on_sent(commit.end_lsn)

    def _on_sent(self, lsn: int) -> None:
        self._received = max(self._received, lsn)
        if self._transaction is None:
            self._idle_lsn = max(self._idle_lsn, lsn)


def _readable(relation: Relation, codec: str) -> Relation:
    names = [readable_name(name, codec) for name in (relation.schema, relation.table, *relation.columns)]
    return relation._replace(schema=names[0], table=names[1], columns=tuple(names[2:]))


def _item(held: _Held | Round, offset: WalOffset) -> WalItem:
    if isinstance(held, Round):
        return Captured(held, offset)
    outcome, mapper = held
    if outcome.round is not None:
        return Captured(outcome.round, offset, outcome.meaning is Meaning.CORRECTION)
    return mapper.reject(outcome.row or (), outcome.reason, offset)
