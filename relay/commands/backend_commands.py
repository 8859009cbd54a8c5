"""The commands ``stream-relay backend``: find, set up, check, inspect, remove and backfill the source of a backend."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from relay.commands.run import fail, run
from relay.commands.secret_arguments import warn_of_option, warned_dsn

backend_app = typer.Typer(no_args_is_help=True, help="Find, set up, check and backfill the source of a backend.")

Backend = Annotated[str | None, typer.Option(help="Name of the backend; default: the one in the settings.")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="A backend option, NAME=VALUE.")]
Dsn = Annotated[
    str | None,
    typer.Option(
        envvar="ADMIN_DSN",
        callback=warned_dsn,
        help="DSN of a role that may do it, such as the table's owner; a password is better given in ADMIN_DSN.",
    ),
]
Feed = Annotated[bool, typer.Option("--feed", help="Also the feed that triggers fill, as the option feed = true.")]
Print = Annotated[bool, typer.Option("--print", help="Print the SQL for a DBA, and change nothing.")]

Rounds = Annotated[int, typer.Option(min=1, max=100, help="How many rounds of each table to show.")]

BACKENDS_WITH_ADMIN: Final = ("postgres-notify", "postgres-replication")
"""The backends that have a source admin; see `backends.postgres.source_admin`."""

_load: Callable[[dict[str, Any]], Any]


def add_to(app: typer.Typer, load: Callable[[dict[str, Any]], Any]) -> None:
    """Add the commands; `load` reads the settings with overrides, or ends the program with an error."""
    global _load
    _load = load
    app.add_typer(backend_app, name="backend")


def chosen(backend: str | None, option: list[str] | None) -> dict[str, Any]:
    """Return the backend and its options on the command line, as overrides of the settings."""
    given: dict[str, Any] = {} if backend is None else {"name": backend}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--option {text!r} is not NAME=VALUE")
        warn_of_option(name, value)
        given[name] = value
    return {"backend": given} if given else {}


@backend_app.command()
def init(
    backend: Backend = None,
    option: Options = None,
    dsn: Dsn = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="A table of rounds, once for each; default: find them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the settings to this file: TOML; variables if it ends in .env."),
    ] = None,
    example: Annotated[
        list[str] | None,
        typer.Option("--example", help="A row as a JSON object, for a table that is empty now, such as an outbox."),
    ] = None,
    rounds: Rounds = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; replace the file of --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and do not ask.")] = False,
) -> None:
    """Look at a database, propose which rows are rounds, show some, and write the settings. Changes no database."""
    given = chosen(backend, option).get("backend", {})
    settings = _load({"backend": {"name": backend}} if backend is not None else {})
    _check_has_admin(settings.backend.name if backend is not None else BACKENDS_WITH_ADMIN[0], "reads no database")
    with _needs_postgres():
        from relay.commands.backend.init_command import init as work
    work(
        settings,
        dsn=dsn,
        tables=table or [],
        given={name: value for name, value in given.items() if name != "name"},
        examples=example or [],
        out=out,
        rounds=rounds,
        yes=yes,
        as_json=as_json,
    )


@backend_app.command()
def preview(
    backend: Backend = None,
    option: Options = None,
    rounds: Rounds = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show some rounds as clients see them, and which rows are none and why, with the settings in force."""
    from relay.config.catalogue import load_catalogue

    admin = _admin_for("reads no table; see its file", backend, option)
    catalogue = load_catalogue(_load({}).games_file)
    from relay.commands.backend.preview_command import preview as work

    run(work(admin, catalogue, rounds=rounds, as_json=as_json))


@backend_app.command()
def setup(
    backend: Backend = None,
    option: Options = None,
    dsn: Dsn = None,
    feed: Feed = False,
    grant_to: Annotated[str | None, typer.Option(help="The role that ingest connects as, if not the owner.")] = None,
    only_print: Print = False,
    renew_slot: Annotated[
        bool, typer.Option("--renew-slot", help="Drop a replication slot that cannot be read, and recreate it.")
    ] = False,
) -> None:
    """Create what the backend needs in its source."""
    admin = _admin_for("needs no set-up", backend, _with_feed(option, feed=feed), dsn)
    if only_print:
        _print(lambda: asyncio.run(admin.planned_sql(grant_to, renew=renew_slot)))
        return

    async def work() -> None:
        then = await admin.set_up(grant_to, renew=renew_slot)
        typer.echo(f"{admin.options.shown_dsn}: {_tables_of(admin)} is set up")
        if then is not None:
            typer.echo(then)

    run(work())


@backend_app.command()
def teardown(
    backend: Backend = None,
    option: Options = None,
    dsn: Dsn = None,
    feed: Feed = False,
    only_print: Print = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what setup created. Rounds that were not captured before are not captured any more."""
    admin = _admin_for("has no set-up to remove", backend, _with_feed(option, feed=feed), dsn)
    if not (yes or only_print):
        typer.confirm("This ends capture of rounds and deletes its offset. Continue?", abort=True)
    if only_print:
        _print(admin.teardown_sql)
        return

    async def work() -> None:
        from backends.postgres.source_admin import run_sql

        await run_sql(admin.options, admin.teardown_sql())
        typer.echo(f"{admin.options.shown_dsn}: the set-up of {_tables_of(admin)} is removed")

    run(work())


@backend_app.command()
def check(backend: Backend = None, option: Options = None) -> None:
    """Check everything that the backend needs; each failure says what to run. Exit code 1 on failure."""
    from backends.contract import SourceError
    from relay.commands.streams import stream_differences
    from relay.config.catalogue import load_catalogue
    from roundlog.log_errors import LogError

    admin = _admin_for("has nothing to check", backend, option)
    from backends.postgres.findings import Finding, Verdict
    from backends.postgres.inspect.mapping_check import check_mapping

    settings = _load({})
    log_settings, catalogue = settings.nats, load_catalogue(settings.games_file)
    failures = 0

    async def findings() -> list[Finding]:
        try:
            broken, harmless = await stream_differences(log_settings)
        except LogError as error:
            broken, harmless = [], [f"the streams were not compared: {error}"]
        own, mapped = await admin.check(), []
        try:
            mapped = await check_mapping(admin.options, catalogue)
        except SourceError:
            if all(finding.verdict is not Verdict.FAILURE for finding in own):
                raise
        return [
            *own,
            *mapped,
            *(Finding(Verdict.FAILURE, text) for text in broken),
            *(Finding(Verdict.WARNING, text) for text in harmless),
        ]

    async def work() -> None:
        nonlocal failures
        for finding in await findings():
            failures += finding.verdict is Verdict.FAILURE
            typer.echo(f"{finding.verdict:8} {finding.text}")

    run(work())
    if failures:
        raise typer.Exit(1)


@backend_app.command()
def status(backend: Backend = None, option: Options = None) -> None:
    """Show the state of capture: its reader, its last confirmed offset, the backlog, the newest round in the log."""
    from relay.commands.newest import newest_round
    from relay.commands.streams import streams_in_words

    admin = _admin_for("has no state outside its process; see its port RELAY_INGEST_PORT", backend, option)
    log_settings = _load({}).nats

    async def work() -> None:
        fields = {**await admin.status(), "newest in the log": await newest_round(log_settings)}
        fields["streams"] = await streams_in_words(log_settings)
        for name, value in fields.items():
            typer.echo(f"{name + ':':20}{value}")

    run(work())


@backend_app.command()
def backfill(
    backend: Backend = None,
    option: Options = None,
    table: Annotated[str | None, typer.Option("--table", help="Which of several tables; default: all.")] = None,
    first: Annotated[int | None, typer.Option("--from-id", min=0, help="First id; default: the oldest.")] = None,
    last: Annotated[
        int | None, typer.Option("--to-id", min=0, help="Last id; default: the newest at the start.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Rounds per second at most; 0: no limit.")] = 0,
) -> None:
    """Publish rounds of the table that the log lacks. To continue a stopped backfill, run it again."""
    from relay.commands.backfill_command import backfill as work

    settings = _load(chosen(backend, option))
    _check_has_admin(settings.backend.name, "has no table to backfill from; stream-relay ingest reads all it has")
    run(work(settings, table=table, first=first, last=last, rate=rate, interactive=sys.stderr.isatty()))


def _tables_of(admin: Any) -> str:
    return ", ".join(table.table for table in admin.options.all_tables)


def _with_feed(option: list[str] | None, *, feed: bool) -> list[str] | None:
    return [*(option or []), "feed=true"] if feed else option


def _admin_for(lack: str, backend: str | None, option: list[str] | None, dsn: str | None = None) -> Any:
    """Return the source admin of the backend; `lack` completes the error "backend X ..." when it has none."""
    from backends.contract import BackendError

    settings = _load(chosen(backend, option)).backend
    _check_has_admin(settings.name, lack)
    try:
        from backends.postgres.source_admin import admin_of

        # The DBA's DSN is used also if the settings have none.
        given = settings.options if dsn is None else {"dsn": dsn, **settings.options}
        return admin_of(settings.name, given).acting_as(dsn)
    except BackendError as error:
        fail(str(error))
    except ImportError as error:
        fail(f"{error}; install it with: pip install 'stream-relay[postgres]'")


@contextmanager
def _needs_postgres() -> Iterator[None]:
    """Turn a missing driver into one sentence."""
    try:
        yield
    except ImportError as error:
        fail(f"{error}; install it with: pip install 'stream-relay[postgres]'")


def _check_has_admin(name: str, lack: str) -> None:
    from backends.registry import known_backends

    if name in known_backends() and name not in BACKENDS_WITH_ADMIN:
        fail(f"backend {name!r} {lack}; this command is for: {', '.join(BACKENDS_WITH_ADMIN)}")


def _print(sql_of: Callable[[], list[str]]) -> None:
    from backends.contract import BackendError

    try:
        statements = sql_of()
    except BackendError as error:
        fail(str(error))
    typer.echo("\n\n".join(f"{sql.rstrip(';')};" for sql in statements))
