"""Set up, check and inspect the source of `postgres-notify`: the trigger, the table of offsets, and its reader."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from backends.backlog import Backlog
from backends.contract import InvalidOptions, SourceError
from backends.postgres.database import ConnectionLost, ask
from backends.postgres.findings import SETUP_COMMAND, Finding, Verdict, connected, reader_name, run_sql
from backends.postgres.game_tables import grants_on_games
from backends.postgres.mapping.finishing import finished_by_options
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.notify.table_check import (
    faults_of,
    is_finished_by_update,
    read_source,
    shortfalls_of,
    warnings_of,
)
from backends.postgres.row_security import refuse_hidden_rows
from backends.postgres.statements import statement
from backends.postgres.table import require_table

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
        made = [statement("create_offsets")]
        for table in options.all_tables:
            if options.notify:
                made += self._wake_sql(table)
            if grant_to is not None:
                made.append(statement("grant_notify", **_names(table), order_column=table.order, role=grant_to))
        return made if grant_to is None else [*made, *grants_on_games(options, grant_to)]

    async def planned_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        return self.setup_sql(grant_to, renew=renew)  # the statements look at the tables themselves

    def _wake_sql(self, table: TableOptions) -> list[str]:
        """Write the triggers for notifications. Rows of the feed are never updated, so it needs only the first."""
        names, channel = _names(table), self.options.channel
        made = [statement("create_wake", **names, channel=channel)]
        if not self.options.feed:
            by_options = finished_by_options(table)
            finished_by = "auto" if by_options is None else "update" if by_options else "insert"
            at = table.finished_at_column
            sql = statement("create_update_wake", **names, channel=channel, finished_at=at, finished_by=finished_by)
            made.append(sql)
        return made

    def teardown_sql(self) -> list[str]:
        options = self.options
        return [
            statement("drop_wake", **_names(table), consumer=options.consumer, source=table.source)
            for table in options.all_tables
        ]

    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None:
        options, sql = self.options, self.setup_sql(grant_to, renew=renew)
        async with connected(options) as connection:
            for table in options.all_tables:
                await ask(options, require_table(connection, options, table))
        await run_sql(options, sql)
        return None

    async def check(self) -> list[Finding]:
        options, findings = self.options, list[Finding]()
        async with connected(options) as connection:
            for table in options.all_tables:
                source = await ask(options, read_source(connection, options, table))
                faults = [*faults_of(source, options, table), *shortfalls_of(source, options, table)]
                findings += [Finding(Verdict.FAILURE, fault) for fault in dict.fromkeys(faults)]
                findings += [Finding(Verdict.WARNING, warning) for warning in warnings_of(source, options, table)]
        findings = list(dict.fromkeys(findings))
        if all(finding.verdict is not Verdict.FAILURE for finding in findings):
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
        rows: dict[str, Any] = {}
        waiting: int | None = None
        async with connected(options) as connection:
            for table in options.all_tables:
                source = await ask(options, read_source(connection, options, table))
                if not source["has_positions"]:
                    return {"state": "not set up", "run": f"{SETUP_COMMAND} --backend postgres-notify"}
                await refuse_hidden_rows(options, connection, table, timeout_s=options.answer_timeout_s)
                row = await ask(options, connection.fetchrow(self._status_sql(table)))
                if row is not None:
                    rows[table.source] = row
                if is_finished_by_update(source, table) and source["may_keep_unfinished"]:
                    count = connection.fetchval(statement("count_unfinished"), options.consumer, table.source)
                    waiting = (waiting or 0) + await ask(options, count)
        if not rows:
            return {"state": "never run"}
        return _status_of(rows, len(options.all_tables), waiting)

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[Callable[[], Awaitable[Backlog]]]:
        options = self.options
        async with connected(options) as connection:
            for table in options.all_tables:
                await refuse_hidden_rows(options, connection, table, timeout_s=options.answer_timeout_s)

            async def measure() -> Backlog:
                """Add the tables up: each number grows with each of them."""
                head = confirmed = behind = 0
                for table in options.all_tables:
                    fetch = connection.fetchrow(self._status_sql(table), timeout=options.answer_timeout_s)
                    row = await ask(options, fetch)
                    if row is None:
                        raise SourceError(
                            f"{options.shown_dsn} has no offset of consumer {options.consumer!r} in {table.source} yet"
                        )
                    head, confirmed, behind = head + row["newest"], confirmed + row["safe"], behind + row["lag_rows"]
                return Backlog("rows", head, confirmed, behind)

            yield measure

    def _status_sql(self, table: TableOptions) -> str:
        return statement(
            "read_notify_status",
            **_names(table),
            order_column=table.order,
            consumer=self.options.consumer,
            source=table.source,
        )


def _names(table: TableOptions) -> dict[str, str]:
    return {"schema": table.schema_name, "table": table.table_name}


def _status_of(rows: Mapping[str, Any], tables: int, waiting: int | None) -> dict[str, str]:
    """Describe the offsets of all tables, by table."""
    first, lag = next(iter(rows.values())), sum(row["lag_rows"] for row in rows.values())
    at_least = "at least " if any(row["lag_rows"] >= _COUNTED for row in rows.values()) else ""
    confirmed = [
        f"{f'{source} ' if tables > 1 else ''}id {row['safe']}, {row['kept_s']:.1f} s ago"
        for source, row in rows.items()
    ]
    status = {
        "state": "reading" if first["active_pid"] else "no reader",
        "active": reader_name(first["active_pid"], first["client"], None),
        "last confirmed": "; ".join(confirmed),
        "lag": f"{at_least}{lag:,} rows",
    }
    return status if waiting is None else {**status, "unfinished": f"{waiting:,} rows"}
