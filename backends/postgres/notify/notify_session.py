"""The two connections of `postgres-notify`: the reader queries rows; the keeper listens, holds the locks, and stores
our offsets.

Two connections, so that offsets are stored and the server's health is seen while a query for rows runs. Knows nothing
of rounds. The queries about one table are in `backends.postgres.notify.table_queries`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from backends.contract import SourceError
from backends.postgres.database import (
    Connection,
    ConnectionLost,
    ask,
    close_connection,
    open_connection,
    pooler_sentence,
    terminate,
)
from backends.postgres.feed.feed_mapper import FeedMapper, FeedTables
from backends.postgres.feed.row_feed import unread_since
from backends.postgres.game_tables import games_of, read_games
from backends.postgres.mapping.column_kinds import own_types_of
from backends.postgres.mapping.game_slugs import GameSlugs
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.table_check import faults_of, read_source, remembers_unfinished, warnings_of
from backends.postgres.notify.table_queries import TableQueries
from backends.postgres.notify.unfinished import UnfinishedChanges
from backends.postgres.row_security import refuse_hidden_rows
from backends.postgres.statements import statement
from backends.postgres.table import columns_of
from rounds import Catalogue

_PROBE_S: Final = 3.0
_CLOSE_S: Final = 1.0
_STANDBY_POLL_S: Final = 0.2
_NO_GAMES: Final = Catalogue({})


class StoredOffset(NamedTuple):
    """The offset in one table as the server keeps it."""

    lowest: int
    safe: int
    look: str | None
    """What the table was like, see `table_identity.TableLook`."""


class NotifySession:
    """A pair of connections, made by `connect`. Call `close` when done, also after an error."""

    def __init__(
        self,
        options: NotifyOptions,
        catalogue: Catalogue,
        games: Mapping[str, GameSlugs],
        feed: FeedTables | None,
        reader: Connection,
        keeper: Connection,
    ) -> None:
        self._options = options
        self._catalogue = catalogue
        self._games = games
        self._feed = feed
        self._timeout_s = options.answer_timeout_s
        self._reader = reader
        self._keeper = keeper
        self._woken = asyncio.Event()
        self._lost: str | None = None
        self._probe: asyncio.Future[None] | None = None
        self._token = ""
        self._keeps_unfinished = False
        self._locks = ";".join(
            statement("lock_reading", schema=table.schema_name, table=table.table_name) for table in options.all_tables
        )
        self.tables: list[TableQueries] = []
        """The queries about each table, in the order of `PostgresOptions.all_tables`."""
        self.warnings: list[str] = []
        for connection in (reader, keeper):
            connection.add_termination_listener(self._on_terminated)

    @classmethod
    async def connect(
        cls,
        options: NotifyOptions,
        catalogue: Catalogue = _NO_GAMES,
        *,
        games: Mapping[str, GameSlugs] | None = None,
        feed: FeedTables | None = None,
    ) -> Self:
        """Connect, check the source, and listen.

        Args:
            options: What is read, see `PostgresOptions.reading`.
            catalogue: The games of this installation; none: rounds are not made.
            games: The games of each table of rounds, by `TableOptions.source`, if an earlier session had them.
            feed: The captured tables, if the feed is read.

        Raises:
            ConnectionLost: The server cannot be reached now.
            SourceError: The source cannot be used as it is.
        """
        made: list[Connection] = []
        try:
            made.append(await open_connection(options, "reader"))
            made.append(await open_connection(options, "keeper"))
            session = cls(options, catalogue, games or games_of(options, catalogue), feed, *made)
            await session._prepare()
        except BaseException:
            for connection in made:
                terminate(connection)
            raise
        return session

    # --- rows ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """Let the queries of the block see all tables at the same moment, as they were. One table needs no block: each
        statement takes its locks before its snapshot."""
        if len(self.tables) < 2:
            yield
            return
        options, reader = self._options, self._reader
        transaction = reader.transaction(isolation="repeatable_read", readonly=True)
        async with asyncio.timeout(self._timeout_s):
            await ask(options, transaction.start())
            await ask(options, reader.execute(self._locks))
        yield
        async with asyncio.timeout(self._timeout_s):
            await ask(options, transaction.commit())

    async def check_row_security(self, table: TableOptions) -> None:
        """Raise `SourceError` if row level security hides rows of the table from our role."""
        alone = len(self._options.all_tables) == 1
        await refuse_hidden_rows(self._options, self._reader, table, timeout_s=self._timeout_s, alone=alone)

    async def wait(self, timeout_s: float) -> None:
        """Wait for a notification, at most `timeout_s`; raise `ConnectionLost` when a connection broke."""
        if self._lost is None:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
        self._woken.clear()
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    # --- the locks and the offsets ------------------------------------------------------------------------------

    async def lead(self) -> bool:
        """Try to take the lock of the one reader of each table; return whether we have all of them.

        Ends the session of a holder that has been silent for ``takeover_s``.
        """
        options = self._options
        if not options.notify:
            return True  # a pooler in transaction mode keeps no session, and so no lock of a session
        # In the same order in every process; none is held while another one is waited for.
        names = sorted(f"stream_relay:{options.consumer}:{table.source}" for table in options.all_tables)
        held: list[str] = []
        for name in names:
            if not await ask(options, self._keeper.fetchval(statement("try_lead"), name, timeout=self._timeout_s)):
                for other in held:
                    await ask(options, self._keeper.execute(statement("stop_leading"), other, timeout=self._timeout_s))
                evict = self._keeper.fetch(statement("evict_leader"), name, options.takeover_s, timeout=self._timeout_s)
                await ask(options, evict)
                await self.wait(_STANDBY_POLL_S)
                return False
            held.append(name)
        return True

    async def offset(self, source: str) -> StoredOffset | None:
        """Return our stored offset in a table; None: none is stored."""
        sql = statement("read_position")
        row: Any = await ask(self._options, self._keeper.fetchrow(sql, *self._keys(source), timeout=self._timeout_s))
        return None if row is None else StoredOffset(row["lowest"], row["safe"], row["identity"])

    async def unfinished(self, source: str) -> list[int]:
        """Return the ids of the unfinished rows that are stored with our offset."""
        if not self._keeps_unfinished:
            return []
        sql, limit = statement("read_unfinished"), self._options.unfinished_rows
        fetch = self._reader.fetch(sql, *self._keys(source), limit, timeout=self._timeout_s)
        return [row["id"] for row in await ask(self._options, fetch)]

    async def add_unfinished(self, source: str, ids: list[int]) -> None:
        """Store the ids of unfinished rows with the offset that `begin` has stored."""
        sql = statement("add_unfinished")
        await ask(self._options, self._keeper.execute(sql, *self._keys(source), ids, timeout=self._timeout_s))

    async def unread_since(self) -> datetime | None:
        """Return since when another backend may have stored what comes next of the feed; None: it holds nothing new."""
        return await unread_since(self._keeper, self._options)

    async def begin(self, source: str, lowest: int) -> bool:
        """Store a first offset, after id `lowest`; return whether none was stored before."""
        sql = statement("begin_position")
        fetch = self._keeper.fetchrow(sql, *self._keys(source), lowest, timeout=self._timeout_s)
        return await ask(self._options, fetch) is not None

    async def rebegin(self, source: str, lowest: int) -> None:
        """Replace the offset that `begin` stored by a lower one. Changes nothing once rows were read."""
        sql = statement("rebegin_position")
        await ask(self._options, self._keeper.execute(sql, *self._keys(source), lowest, timeout=self._timeout_s))

    async def rewind(self, source: str, safe: int) -> None:
        """Set our stored offset back, over the connection of the reader: the keeper works at the same time."""
        sql = statement("rewind_position")
        await ask(self._options, self._reader.execute(sql, *self._keys(source), safe, timeout=self._timeout_s))

    async def keep(self, source: str, safe: int, lowest: int, look: str | None, unfinished: UnfinishedChanges) -> None:
        """Advance our stored offset; ids up to `lowest` are never read again. Store the unfinished rows with it."""
        arguments: tuple[object, ...] = (*self._keys(source), safe, lowest)
        name = "keep_position"
        if self._keeps_unfinished:
            name, arguments = "keep_unfinished", (*arguments, look, unfinished.added, unfinished.removed)
        await ask(self._options, self._keeper.execute(statement(name), *arguments, timeout=self._timeout_s))

    async def heartbeat(self) -> None:
        """Run an empty query, so that standbys see an active session and a dead connection is noticed."""
        await ask(self._options, self._keeper.execute("SELECT", timeout=self._timeout_s))

    def fail(self, reason: str) -> None:
        """Mark the session as lost: a pending `wait` raises, and so does the next one."""
        self._lost = self._lost or reason
        self._woken.set()

    async def close(self) -> None:
        """Close both connections, within a second each."""
        for connection in (self._keeper, self._reader):
            connection.remove_termination_listener(self._on_terminated)
            await close_connection(connection, within_s=_CLOSE_S)

    # --- inside -------------------------------------------------------------------------------------------------

    def _keys(self, source: str) -> tuple[str, str]:
        return self._options.consumer, source

    async def _prepare(self) -> None:
        options, faults = self._options, list[str]()
        for table in options.all_tables:
            source = await ask(options, read_source(self._reader, options, table))
            if new := faults_of(source, options, table):
                faults += new
                continue
            await self.check_row_security(table)
            self.warnings += warnings_of(source, options, table)
            self._keeps_unfinished = bool(source["may_keep_unfinished"] and source["keeps_identity"])
            mapper = await self._mapper_of(table, source)
            games = [mapper.games] if self._feed is None else list(self._games.values())
            is_updated = remembers_unfinished(source, table)
            self.tables.append(TableQueries(options, table, mapper, self._reader, games=games, is_updated=is_updated))
        if faults:
            raise SourceError("\n".join(dict.fromkeys(faults)))
        self.warnings = list(dict.fromkeys(self.warnings))
        if options.notify:
            await ask(options, self._keeper.add_listener(options.channel, self._on_notified))
            await self._probe_listening()

    async def _mapper_of(self, table: TableOptions, source: dict[str, Any]) -> TableMapper:
        if self._feed is not None:
            return FeedMapper(self._feed, self._catalogue, columns_of(source))
        sql, options = statement("read_types", schema=table.schema_name, table=table.table_name), self._options
        types = await ask(options, self._reader.fetch(sql, timeout=self._timeout_s))
        games = self._games[table.source]
        await read_games(self._reader, options, [games])
        return TableMapper(table, self._catalogue, columns_of(source), games=games, own_types=own_types_of(types))

    async def _probe_listening(self) -> None:
        """Check that a notification arrives.

        Behind a pooler in transaction mode none does: LISTEN belongs to a session, and each transaction there uses
        another one. The probe is sent over the other connection, so that it cannot come with the query's own result.
        """
        self._token = token = f"probe {secrets.token_hex(8)}"
        self._probe = asyncio.get_running_loop().create_future()
        await ask(self._options, self._reader.execute("SELECT pg_notify($1, $2)", self._options.channel, token))
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._probe
        except TimeoutError:
            raise SourceError(
                pooler_sentence(self._options, f"a notification did not arrive in {_PROBE_S:g} s")
            ) from None

    def _on_notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if self._probe is not None and not self._probe.done() and payload == self._token:
            self._probe.set_result(None)
        self._woken.set()

    def _on_terminated(self, _connection: object) -> None:
        self.fail("the server closed the connection")
