"""Set up, check and inspect the source of `postgres-notify`: the trigger, the table of offsets, and its reader."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Self

from backends.backlog import Backlog
from backends.contract import InvalidOptions, SourceError
from backends.postgres.database import ConnectionLost, ask
from backends.postgres.findings import SETUP_COMMAND, Finding, Verdict, connected, reader_name, run_sql
from backends.postgres.notify.notify_options import NotifyOptions, faults_of, read_source, warnings_of
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.statements import statement

_COUNTED: Final = 100_000
"""The limit of the count in sql/read_notify_status.sql: a larger count would be slow."""


class NotifyAdmin:
    """The source admin of `postgres-notify`. Implements `backends.postgres.source_admin.SourceAdmin`."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.options = NotifyOptions.read(options)

    def acting_as(self, dsn: str | None) -> Self:
        return self if dsn is None else type(self)({**self.options.given, "dsn": dsn})

    def setup_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        if renew:
            raise InvalidOptions("--renew-slot is for postgres-replication; postgres-notify has no slot")
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name}
        made = [statement("create_wake", **names, channel=options.channel)]
        return made if grant_to is None else [*made, statement("grant_notify", **names, role=grant_to)]

    def teardown_sql(self) -> list[str]:
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name}
        return [statement("drop_wake", **names, consumer=options.consumer, source=options.source)]

    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None:
        await run_sql(self.options, self.setup_sql(grant_to, renew=renew))
        return None

    async def check(self) -> list[Finding]:
        options = self.options
        async with connected(options) as connection:
            source = await read_source(connection, options)
        findings = [Finding(Verdict.FAILURE, fault) for fault in faults_of(source, options)]
        findings += [Finding(Verdict.WARNING, warning) for warning in warnings_of(source, options)]
        if not findings or all(finding.verdict is not Verdict.FAILURE for finding in findings):
            findings.append(await self._check_session())
        return findings

    async def _check_session(self) -> Finding:
        try:
            session = await NotifySession.connect(self.options)
        except (SourceError, ConnectionLost) as error:
            return Finding(Verdict.FAILURE, str(error))
        await session.close()
        works = "a notification arrives" if self.options.notify else "rows can be polled"
        return Finding(Verdict.OK, f"{self.options.shown_dsn}: {works}")

    async def status(self) -> dict[str, str]:
        options = self.options
        async with connected(options) as connection:
            source = await read_source(connection, options)
            if not source["has_positions"]:
                return {"state": "not set up", "run": f"{SETUP_COMMAND} --backend postgres-notify"}
            row = await ask(options, connection.fetchrow(self._status_sql()))
        if row is None:
            return {"state": "never run"}
        at_least = "at least " if row["lag_rows"] >= _COUNTED else ""
        return {
            "state": "reading" if row["active_pid"] else "no reader",
            "active": reader_name(row["active_pid"], row["client"], None),
            "last confirmed": f"id {row['safe']}, {row['kept_s']:.1f} s ago",
            "lag": f"{at_least}{row['lag_rows']:,} rows",
        }

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[Callable[[], Awaitable[Backlog]]]:
        options, sql = self.options, self._status_sql()
        async with connected(options) as connection:

            async def measure() -> Backlog:
                row = await ask(options, connection.fetchrow(sql, timeout=options.answer_timeout_s))
                if row is None:
                    raise SourceError(f"{options.shown_dsn} has no offset of consumer {options.consumer!r} yet")
                return Backlog("rows", row["newest"], row["safe"], row["lag_rows"])

            yield measure

    def _status_sql(self) -> str:
        options = self.options
        return statement(
            "read_notify_status",
            schema=options.schema_name,
            table=options.table_name,
            order_column=options.order,
            consumer=options.consumer,
            source=options.source,
        )
