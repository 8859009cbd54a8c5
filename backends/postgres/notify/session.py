"""The two connections of `postgres-notify`: one reads rows, the other listens, leads, and keeps our offset.

Owns all use of asyncpg for reading. Two, so that an offset can be kept and the server can be seen to live while nobody
asks for rows. Knows nothing of rounds, and decides nothing about rows: see `backends.postgres.notify.frontier`.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import asyncpg

from backends.contract import SourceError
from backends.postgres.dsn import NotForAsyncpg
from backends.postgres.mapping import SESSION
from backends.postgres.notify.frontier import Span
from backends.postgres.notify.options import (
    NotifyOptions,
    faults_of,
    game_type_column,
    read_source,
    scan_statement,
    warnings_of,
)
from backends.postgres.options import PostgresOptions
from backends.postgres.statements import statement

_PROBE_S: Final = 3.0
_CLOSE_S: Final = 1.0
_STANDBY_LOOK_S: Final = 0.2

_KEEPALIVE: Final = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The server drops a reader that vanished within half a minute, and the next one may lead."""

Connection: TypeAlias = "asyncpg.Connection[Any]"


class ConnectionLost(Exception):
    """A connection broke or cannot be made now; another may do."""


class NotifySession:
    """A pair of connections, made by `connect`. `close` it whatever happened."""

    def __init__(self, options: NotifyOptions, reader: Connection, keeper: Connection) -> None:
        self._options = options
        self._patience_s = options.answer_timeout_s
        self._reader = reader
        self._keeper = keeper
        self._woken = asyncio.Event()
        self._lost: str | None = None
        self._probe: asyncio.Future[None] | None = None
        self._token = ""
        self._scan_sql = ""
        self._leads = False
        self.has_game_type = False
        self.warnings: list[str] = []
        for connection in (reader, keeper):
            connection.add_termination_listener(self._on_terminated)

    @classmethod
    async def connect(cls, options: NotifyOptions) -> Self:
        """Connect, check the source, and listen.

        Raises:
            ConnectionLost: Nobody there, or not now.
            SourceError: The source cannot be used as it is.
        """
        made: list[Connection] = []
        try:
            made.append(await open_connection(options, "reader", pooled=not options.notify))
            made.append(await open_connection(options, "keeper", pooled=not options.notify))
            session = cls(options, *made)
            await session._prepare()
        except BaseException:
            for connection in made:
                connection.terminate()
            raise
        return session

    # --- rows ---------------------------------------------------------------------------------------------------

    async def scan(self, spans: Sequence[Span], limit: int) -> list[asyncpg.Record]:
        """Read rows within `spans` in their order, `limit` at most, all of one snapshot."""
        lows, highs = [span.low for span in spans], [span.high for span in spans]
        scan = self._reader.fetch(self._scan_sql, lows, highs, limit, timeout=self._patience_s)
        rows: list[asyncpg.Record] = await ask(self._options, scan)
        return rows

    async def writers(self) -> list[str]:
        """Name the transactions that may hold rows back now."""
        sql = statement("read_writers")
        rows = await ask(self._options, self._reader.fetch(sql, self._options.quoted_table, timeout=self._patience_s))
        return [row[0] for row in rows]

    async def extent(self) -> tuple[int | None, int | None]:
        """Return the oldest and the newest id that are visible; None: there is none."""
        options = self._options
        sql = statement("read_extent", schema=options.schema_name, table=options.table_name, order_column=options.order)
        row = await ask(options, self._reader.fetchrow(sql, timeout=self._patience_s))
        return row["oldest"], row["newest"]

    async def find(self, rounds: Mapping[str, int]) -> int | None:
        """Return the id of the newest row that is one of `rounds`, a round id for each game; None: none was found."""
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
        found: int | None = await ask(options, self._reader.fetchval(sql, games, ids, timeout=self._patience_s))
        return found

    async def wait(self, timeout_s: float) -> None:
        """Wait until we are woken, `timeout_s` at most; raise `ConnectionLost` when a connection broke."""
        if self._lost is None:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
        self._woken.clear()
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    # --- leading and keeping ------------------------------------------------------------------------------------

    async def lead(self) -> bool:
        """Become the one reader; whether we are. Ends one that has not been heard of for ``takeover_s``."""
        options = self._options
        if not options.notify:
            return True  # a pooler in transaction mode has no sessions, and so no locks of sessions
        name = f"stream_relay:{options.consumer}:{options.source}"
        leads = await ask(options, self._keeper.fetchval(statement("try_lead"), name, timeout=self._patience_s))
        if not leads:
            evict = self._keeper.fetch(statement("evict_leader"), name, options.takeover_s, timeout=self._patience_s)
            await ask(options, evict)
            await self.wait(_STANDBY_LOOK_S)
        self._leads = bool(leads)
        return self._leads

    async def offset(self) -> tuple[int, int] | None:
        """Return the lowest and the safe id of our offset; None: we have never run."""
        keys = (self._options.consumer, self._options.source)
        row = await ask(
            self._options,
            self._keeper.fetchrow(statement("read_position"), *keys, timeout=self._patience_s),
        )
        return None if row is None else (row["lowest"], row["safe"])

    async def begin(self, lowest: int) -> bool:
        """Make our offset, after id `lowest`; whether there was none yet."""
        keys = (self._options.consumer, self._options.source)
        sql = statement("begin_position")
        return await ask(self._options, self._keeper.fetchrow(sql, *keys, lowest, timeout=self._patience_s)) is not None

    async def rebegin(self, lowest: int) -> None:
        """Begin lower than `begin` did, while nothing has been read."""
        keys = (self._options.consumer, self._options.source)
        sql = statement("rebegin_position")
        await ask(self._options, self._keeper.execute(sql, *keys, lowest, timeout=self._patience_s))

    async def keep(self, safe: int, lowest: int) -> None:
        """Move our offset on, and what is never looked at again."""
        keys = (self._options.consumer, self._options.source)
        sql = statement("keep_position")
        await ask(self._options, self._keeper.execute(sql, *keys, safe, lowest, timeout=self._patience_s))

    async def beat(self) -> None:
        """Let the server hear of us, so that nobody takes us for dead, and see that it is there."""
        await ask(self._options, self._keeper.execute("SELECT", timeout=self._patience_s))

    def fail(self, reason: str) -> None:
        """Take note that a connection is of no use; whoever waits for rows is told."""
        self._lost = self._lost or reason
        self._woken.set()

    async def close(self) -> None:
        """Leave both connections, within a second."""
        for connection in (self._keeper, self._reader):
            connection.remove_termination_listener(self._on_terminated)
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await connection.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    # --- inside -------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        options = self._options
        source = await ask(options, read_source(self._reader, options))
        if faults := faults_of(source, options):
            raise SourceError("\n".join(faults))
        self.warnings = warnings_of(source, options)
        columns: list[str] = source["columns"]
        self._scan_sql = scan_statement(options, columns)
        self.has_game_type = game_type_column(options, columns) is not None
        if options.notify:
            await ask(options, self._keeper.add_listener(options.channel, self._on_notified))
            await self._probe_listening()

    async def _probe_listening(self) -> None:
        """See that a notification arrives.

        Behind a pooler in transaction mode it never does: LISTEN belongs to a session, and we have none there. Sent
        over the other connection, so that it is not merely the answer to the query that sent it.
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


async def open_connection(options: PostgresOptions, role: str, *, pooled: bool = False) -> Connection:
    """Open one connection that reads rows as the mapper wants them; errors as in `NotifySession.connect`."""
    settings = {} if pooled else {**SESSION, **_KEEPALIVE, "application_name": f"stream-relay {role}"}
    try:
        target = options.target.for_asyncpg(options.connect_timeout_s)
    except NotForAsyncpg as error:
        raise SourceError(str(error)) from None
    connect = asyncpg.connect(
        **target.arguments,
        # A pooler in transaction mode hands each transaction to another server process: nothing prepared may stay.
        statement_cache_size=0 if pooled else 100,
        server_settings=settings,
    )
    connection: Connection = await ask(options, connect)
    return connection


async def ask(options: PostgresOptions, answer: Any) -> Any:
    """Await what asyncpg does, and turn its errors into ours."""
    try:
        return await answer
    except asyncpg.PostgresError as error:
        raise _translated(options, error) from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # TimeoutError is an OSError
        raise ConnectionLost(str(error) or f"no answer ({type(error).__name__})") from error


_PASSING: Final = ("08", "53", "57", "40", "55P03", "25006")
"""Classes of what goes away by itself: connection, resources, shutdown, deadlock, lock; and a demoted primary."""


def _translated(options: PostgresOptions, error: asyncpg.PostgresError) -> Exception:
    code = str(error.sqlstate or "")
    sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
    if code == "26000" or code == "42P05" or "startup parameter" in sentence:
        return SourceError(pooler_sentence(options, sentence))
    if code.startswith(_PASSING):
        return ConnectionLost(f"{sentence} ({code})")
    return SourceError(f"{options.shown_dsn}: {sentence} ({code})")


def pooler_sentence(options: PostgresOptions, sign: str) -> str:
    """Name the pooler, and say what to do about it."""
    return (
        f"{options.shown_dsn} looks like a pooler in transaction mode ({sign}), where LISTEN does not work; set the "
        f"option 'dsn' to the server itself or a pool in session mode, or notify=false to poll only"
    )
