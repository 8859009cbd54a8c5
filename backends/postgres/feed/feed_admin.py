"""Set up, check, inspect and remove a source that is read through the feed.

The feed is a table like any other: what a backend needs to read it is done by the admin of that backend. Owns what is
needed besides: the feed, and the triggers of the captured tables.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, Self

from backends.backlog import Backlog
from backends.contract import SourceError, SourceUnavailable
from backends.postgres.database import ask
from backends.postgres.feed.feed_setup import check_feed, feed_status, setup_sql, teardown_sql
from backends.postgres.findings import Finding, Verdict, connected, run_sql
from backends.postgres.postgres_options import PostgresOptions


class _Reader(Protocol):
    """The part of `backends.postgres.source_admin.SourceAdmin` that is used of the backend that reads the feed."""

    async def planned_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]: ...
    def teardown_sql(self) -> list[str]: ...
    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None: ...
    async def check(self) -> list[Finding]: ...
    async def status(self) -> dict[str, str]: ...
    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]: ...


class FeedAdmin:
    """The source admin of a backend with the option ``feed``: a `backends.postgres.source_admin.SourceAdmin`."""

    def __init__(self, options: PostgresOptions, make_reader: Callable[[Mapping[str, object]], _Reader]) -> None:
        """Take all options, and what makes the admin of the backend."""
        self.options = options
        self._make_reader = make_reader
        self._reader: Final = make_reader(options.reading.given)

    def acting_as(self, dsn: str | None) -> Self:
        if dsn is None:
            return self
        return type(self)(type(self.options).read({**self.options.given, "dsn": dsn}), self._make_reader)

    def setup_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        """As `planned_sql`, since the triggers depend on the columns of the tables. Not in an event loop."""
        return asyncio.run(self.planned_sql(grant_to, renew=renew))

    async def planned_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        """See `SourceAdmin`.

        Raises:
            SourceError: The server cannot be queried, or a table cannot fill the feed.
        """
        return [*await self._feed_sql(grant_to), *await self._reader.planned_sql(grant_to, renew=renew)]

    def teardown_sql(self) -> list[str]:
        return [*self._reader.teardown_sql(), *teardown_sql(self.options)]

    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None:
        await run_sql(self.options, await self._feed_sql(grant_to))
        return await self._reader.set_up(grant_to, renew=renew)

    async def check(self) -> list[Finding]:
        options = self.options
        async with connected(options) as connection:
            findings = await ask(options, check_feed(connection, options))
        try:
            return [*findings, *await self._reader.check()]
        except SourceUnavailable:
            raise
        except SourceError:
            if all(finding.verdict is not Verdict.FAILURE for finding in findings):
                raise
            return findings  # the feed is missing, which is said already

    async def status(self) -> dict[str, str]:
        async with connected(self.options) as connection:
            feed = await ask(self.options, feed_status(connection))
        return {**await self._reader.status(), **feed}

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        return self._reader.measuring()

    async def _feed_sql(self, grant_to: str | None) -> list[str]:
        options = self.options
        async with connected(options) as connection:
            return await ask(options, setup_sql(connection, options, grant_to))
