"""The two connections of `postgres-notify`: the reader queries rows; the keeper listens, holds the lock, and stores our
offset.

Two connections, so that the offset is stored and the server's health is seen while a query for rows runs. Knows nothing
of rounds. Which rows are new is decided in `backends.postgres.notify.frontier`.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import asyncpg

from backends.contract import SourceError
from backends.postgres.database import (
    Connection,
    ConnectionLost,
    ask,
    close_connection,
    fetch_rows,
    open_connection,
    pooler_sentence,
    terminate,
)
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.notify.frontier import Span
from backends.postgres.notify.notify_options import NotifyOptions, faults_of, read_source, warnings_of
from backends.postgres.statements import statement
from backends.postgres.table import columns_of, scan_statement
from rounds import Catalogue

_PROBE_S: Final = 3.0
_CLOSE_S: Final = 1.0
_STANDBY_POLL_S: Final = 0.2
_NO_GAMES: Final = Catalogue({})
"""For sessions that make no rounds."""


class NotifySession:
    """A pair of connections, made by `connect`. Call `close` when done, also after an error."""

    def __init__(self, options: NotifyOptions, catalogue: Catalogue, reader: Connection, keeper: Connection) -> None:
        self._options = options
        self._catalogue = catalogue
        self._timeout_s = options.answer_timeout_s
        self._reader = reader
        self._keeper = keeper
        self._woken = asyncio.Event()
        self._lost: str | None = None
        self._probe: asyncio.Future[None] | None = None
        self._token = ""
        self._scan_sql = ""
        self.warnings: list[str] = []
        for connection in (reader, keeper):
            connection.add_termination_listener(self._on_terminated)

    mapper: TableMapper
    """Reads the rows of `scan`."""

    @classmethod
    async def connect(cls, options: NotifyOptions, catalogue: Catalogue = _NO_GAMES) -> Self:
        """Connect, check the source, and listen.

        Raises:
            ConnectionLost: The server cannot be reached now.
            SourceError: The source cannot be used as it is.
        """
        made: list[Connection] = []
        try:
            made.append(await open_connection(options, "reader"))
            made.append(await open_connection(options, "keeper"))
            session = cls(options, catalogue, *made)
            await session._prepare()
        except BaseException:
            for connection in made:
                terminate(connection)
            raise
        return session

    # --- rows ---------------------------------------------------------------------------------------------------

    async def scan(self, spans: Sequence[Span], limit: int) -> list[asyncpg.Record]:
        """Read rows within `spans` in ascending order, at most `limit`, in one snapshot."""
        lows, highs = [span.low for span in spans], [span.high for span in spans]
        return await fetch_rows(
            self._options, self._reader, self._scan_sql, lows, highs, limit, timeout_s=self._timeout_s
        )

    async def writers(self) -> list[str]:
        """Return the ids of the transactions that may have uncommitted rows in the table."""
        sql = statement("read_writers")
        rows = await ask(self._options, self._reader.fetch(sql, self._options.quoted_table, timeout=self._timeout_s))
        return [row[0] for row in rows]

    async def extent(self) -> tuple[int | None, int | None]:
        """Return the oldest and the newest visible id; None in an empty table."""
        options = self._options
        sql = statement("read_extent", schema=options.schema_name, table=options.table_name, order_column=options.order)
        row: Any = await ask(options, self._reader.fetchrow(sql, timeout=self._timeout_s))
        return row["oldest"], row["newest"]

    async def find(self, rounds: Mapping[str, int]) -> int | None:
        """Return the id of the newest row that is one of `rounds` (round ids by game); None: none was found."""
        options = self._options
        sql = statement(
            "find_rounds",
            schema=options.schema_name,
            table=options.table_name,
            order_column=options.order,
            game_slug=options.game_slug_column,
            round_id=options.round_id_column,
        )
        games, ids = list(rounds), [str(number) for number in rounds.values()]
        found: int | None = await ask(options, self._reader.fetchval(sql, games, ids, timeout=self._timeout_s))
        return found

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

    # --- the lock and the offset --------------------------------------------------------------------------------

    async def lead(self) -> bool:
        """Try to take the lock of the one reader; return whether we have it.

        Ends the session of a holder that has been silent for ``takeover_s``.
        """
        options = self._options
        if not options.notify:
            return True  # a pooler in transaction mode keeps no session, and so no lock of a session
        name = f"stream_relay:{options.consumer}:{options.source}"
        leads = await ask(options, self._keeper.fetchval(statement("try_lead"), name, timeout=self._timeout_s))
        if not leads:
            evict = self._keeper.fetch(statement("evict_leader"), name, options.takeover_s, timeout=self._timeout_s)
            await ask(options, evict)
            await self.wait(_STANDBY_POLL_S)
        return bool(leads)

    async def offset(self) -> tuple[int, int] | None:
        """Return the lowest and the safe id of our stored offset; None: none is stored."""
        keys = (self._options.consumer, self._options.source)
        row = await ask(
            self._options,
            self._keeper.fetchrow(statement("read_position"), *keys, timeout=self._timeout_s),
        )
        return None if row is None else (row["lowest"], row["safe"])

    async def begin(self, lowest: int) -> bool:
        """Store a first offset, after id `lowest`; return whether none was stored before."""
        keys = (self._options.consumer, self._options.source)
        sql = statement("begin_position")
        return await ask(self._options, self._keeper.fetchrow(sql, *keys, lowest, timeout=self._timeout_s)) is not None

    async def rebegin(self, lowest: int) -> None:
        """Replace the offset that `begin` stored by a lower one. Changes nothing once rows were read."""
        keys = (self._options.consumer, self._options.source)
        sql = statement("rebegin_position")
        await ask(self._options, self._keeper.execute(sql, *keys, lowest, timeout=self._timeout_s))

    async def keep(self, safe: int, lowest: int) -> None:
        """Advance our stored offset; ids up to `lowest` are never read again."""
        keys = (self._options.consumer, self._options.source)
        sql = statement("keep_position")
        await ask(self._options, self._keeper.execute(sql, *keys, safe, lowest, timeout=self._timeout_s))

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

    async def _prepare(self) -> None:
        options = self._options
        source = await ask(options, read_source(self._reader, options))
        if faults := faults_of(source, options):
            raise SourceError("\n".join(faults))
        self.warnings = warnings_of(source, options)
        self.mapper = TableMapper(options, self._catalogue, columns_of(source))
        self._scan_sql = scan_statement(self.mapper)
        if options.notify:
            await ask(options, self._keeper.add_listener(options.channel, self._on_notified))
            await self._probe_listening()

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
