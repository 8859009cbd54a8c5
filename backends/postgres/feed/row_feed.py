"""Care for the feed while it is read: look after its triggers, and delete the rows that every reader has stored.

Owns a connection of its own and the mappers of the captured tables. Does not read the rows of the feed: each backend
does, as those of any table, with a `FeedMapper`. Why so: docs/adr/0037-a-feed-by-trigger.md
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import structlog

from backends.contract import SourceError, SourceUnavailable
from backends.postgres.database import Connection, ConnectionLost, ask, close_connection, open_connection
from backends.postgres.feed.feed_horizon import FeedHorizon, Horizon
from backends.postgres.feed.feed_mapper import FeedTables
from backends.postgres.feed.feed_setup import faults_of_feed, read_captured
from backends.postgres.game_tables import games_of, read_games
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement
from rounds import Catalogue

log = structlog.get_logger()

_TICK_S: Final = 1.0
_LOOK_S: Final = 5.0
"""How often the triggers are looked at."""
_TRIM_ROWS: Final = 5000
"""Rows of one DELETE: a few milliseconds."""
_TRIMS: Final = 20
"""Deletes in one turn: 50,000 rows a second, more than a trigger writes."""
_CLOSE_S: Final = 1.0
_CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""How much the clocks of this host and the log may differ."""


async def unread_since(connection: Connection, options: PostgresOptions) -> datetime | None:
    """Return when the oldest row of the feed was written that the reader has not stored, a minute earlier since clocks
    differ; None: it has stored all."""
    age_s = await ask(options, connection.fetchval(statement("read_unread_age"), options.feed_reader))
    return None if age_s is None else datetime.now(UTC) - timedelta(seconds=age_s) - _CLOCKS_DIFFER


class RowFeed:
    """The feed of one backend."""

    def __init__(self, options: PostgresOptions, catalogue: Catalogue) -> None:
        self._options = options
        self._catalogue = catalogue
        self.tables = FeedTables(corrections=options.corrections)
        self.games = games_of(options, catalogue)
        """The games of the captured tables; `load_games` reads them when a row raises `UnknownGameKey`."""
        self._columns: object = None
        self._faults: list[str] = []
        self._is_known = False

    async def open(self) -> None:
        """Check the feed and find the captured tables.

        Raises:
            SourceUnavailable: The server cannot be reached now.
            SourceError: Rounds would not get into the feed.
        """
        options = self._options
        try:
            connection = await open_connection(options, "feed")
            try:
                if faults := await self._look(connection):
                    raise SourceError("\n".join(faults))
                await read_games(connection, options, self.games.values())
            finally:
                await close_connection(connection, within_s=_CLOSE_S)
        except ConnectionLost as error:
            raise SourceUnavailable(f"{options.shown_dsn} cannot be reached: {error}") from error

    async def unread_since(self) -> datetime | None:
        """Return since when another backend may have stored what comes next of the feed; None: it holds nothing new.

        Raises:
            ConnectionLost: The server cannot be reached now.
            SourceError: It refuses the query.
        """
        connection = await open_connection(self._options, "feed")
        try:
            return await unread_since(connection, self._options)
        finally:
            await close_connection(connection, within_s=_CLOSE_S)

    async def keep(self, *, leads: Callable[[], bool], stored_lsn: Callable[[], int] | None = None) -> NoReturn:
        """Look after the feed until cancelled; a lost connection is made again.

        Args:
            leads: Whether this process reads the feed now. Others delete nothing.
            stored_lsn: Returns the LSN up to which everything is stored. None: the feed is read by number, and the
                reader stores its offset itself.
        """
        while True:
            try:
                connection = await open_connection(self._options, "feed")
                try:
                    await self._keep(connection, leads, stored_lsn)
                finally:
                    await close_connection(connection, within_s=_CLOSE_S)
            except (ConnectionLost, SourceError) as error:
                log.warning("feed_not_kept", database=self._options.shown_dsn, error=str(error))
            await asyncio.sleep(_TICK_S)

    async def _keep(
        self, connection: Connection, leads: Callable[[], bool], stored_lsn: Callable[[], int] | None
    ) -> None:
        horizon, now, look_at = FeedHorizon(), asyncio.get_running_loop().time, 0.0
        while True:
            if now() >= look_at:
                look_at = now() + _LOOK_S
                self._report(await self._look(connection))
            if leads():
                if stored_lsn is not None:
                    await self._store_offset(connection, horizon, stored_lsn())
                await self._trim(connection)
            await asyncio.sleep(_TICK_S)

    def _report(self, faults: list[str]) -> None:
        if faults != self._faults:
            self._faults = faults
            for fault in faults:
                log.error("feed_incomplete", database=self._options.shown_dsn, reason=fault)

    async def _look(self, connection: Connection) -> list[str]:
        """Return what is missing, and follow changes of the captured tables."""
        options = self._options
        tables = await ask(options, read_captured(connection, options, self._catalogue, self.games))
        if (columns := [table.columns for table in tables]) != self._columns:
            self._columns = columns
            self.tables.mappers = {table.mapper.table.source: table.mapper for table in tables}
        return await ask(options, faults_of_feed(connection, options, tables))

    async def _store_offset(self, connection: Connection, horizon: FeedHorizon, stored_lsn: int) -> None:
        options = self._options
        newest = await ask(options, connection.fetchval(statement("read_feed_number")))
        now: Any = await ask(options, connection.fetchrow(statement("read_feed_horizon")))
        number = horizon.step(Horizon(newest, now["xmin"], now["xmax"], now["lsn"]), stored_lsn)
        if number is not None or not self._is_known:
            # The first time to be counted as a reader, whose rows have to be kept.
            sql = statement("keep_feed_position")
            await ask(options, connection.execute(sql, options.feed_reader, number or 0))
            self._is_known = True

    async def _trim(self, connection: Connection) -> None:
        """Delete what every reader has stored, in bounded steps."""
        sql = statement("trim_feed")
        for _ in range(_TRIMS):
            gone = await ask(self._options, connection.fetchval(sql, self._options.feed_keep_s, _TRIM_ROWS))
            if gone < _TRIM_ROWS:
                return
            await asyncio.sleep(0)
