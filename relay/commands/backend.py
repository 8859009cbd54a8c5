"""The commands ``stream-relay backend``: set up, check, look at, remove and fill in the source of a backend."""

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from relay.commands.run import fail, run

backend_app = typer.Typer(no_args_is_help=True, help="Set up and care for the source of a backend.")

Backend = Annotated[str | None, typer.Option(help="Name of the backend; the settings' by default.")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="A backend option, NAME=VALUE.")]
Dsn = Annotated[str | None, typer.Option(help="Connect as somebody who may, such as the table's owner.")]
Print = Annotated[bool, typer.Option("--print", help="Print the SQL for a DBA, and run nothing.")]

WITH_ADMIN: Final = ("postgres-notify", "postgres-replication")
"""Backends whose source we can do something for; see `backends.postgres.admin`."""

_load: Callable[[dict[str, Any]], Any]


def add_to(app: typer.Typer, load: Callable[[dict[str, Any]], Any]) -> None:
    """Add the commands; `load` reads the settings with those overrides, or ends the program with a sentence."""
    global _load
    _load = load
    app.add_typer(backend_app, name="backend")


def chosen(backend: str | None, option: list[str] | None) -> dict[str, Any]:
    """Read which backend, and which options of it, the command line names."""
    given: dict[str, Any] = {} if backend is None else {"name": backend}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--option {text!r} is not NAME=VALUE")
        given[name] = value
    return {"backend": given} if given else {}


@backend_app.command()
def setup(
    backend: Backend = None,
    option: Options = None,
    dsn: Dsn = None,
    grant_to: Annotated[str | None, typer.Option(help="The role that ingest connects as, if not the owner.")] = None,
    only_print: Print = False,
    renew_slot: Annotated[
        bool, typer.Option("--renew-slot", help="Drop a replication slot that cannot be read, and make it anew.")
    ] = False,
) -> None:
    """Make what the backend needs in its source."""
    care = _care("needs no set-up", backend, option, dsn)
    if only_print:
        _print(lambda: care.setup_sql(grant_to, renew=renew_slot))
        return

    async def work() -> None:
        then = await care.set_up(grant_to, renew=renew_slot)
        typer.echo(f"{care.options.shown_dsn}: {care.options.table} is set up")
        if then is not None:
            typer.echo(then)

    run(work())


@backend_app.command()
def teardown(
    backend: Backend = None,
    option: Options = None,
    dsn: Dsn = None,
    only_print: Print = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what setup made; what was not captured by then is not captured any more."""
    care = _care("has no set-up that could be removed", backend, option, dsn)
    if not (yes or only_print):
        typer.confirm("Capture of rounds ends here, and its place is forgotten. Go on?", abort=True)
    if only_print:
        _print(care.teardown_sql)
        return

    async def work() -> None:
        from backends.postgres.admin import run_sql

        await run_sql(care.options, care.teardown_sql())
        typer.echo(f"{care.options.shown_dsn}: {care.options.table} is removed")

    run(work())


@backend_app.command()
def check(backend: Backend = None, option: Options = None) -> None:
    """Check everything that the backend needs; each failure says what to run. Exit code 1 when there is one."""
    from backends.postgres.admin import Verdict

    care = _care("needs nothing that could be checked", backend, option)
    failures = 0

    async def work() -> None:
        nonlocal failures
        for finding in await care.check():
            failures += finding.verdict is Verdict.FAILURE
            typer.echo(f"{finding.verdict:8} {finding.text}")

    run(work())
    if failures:
        raise typer.Exit(1)


@backend_app.command()
def status(backend: Backend = None, option: Options = None) -> None:
    """Say how capture stands: who reads, what was confirmed last, how much waits, what the log has."""
    from relay.commands.newest import newest_round

    care = _care("has no state outside its process, whose port tells it (RELAY_INGEST_PORT)", backend, option)
    log_settings = _load({}).nats

    async def work() -> None:
        told = {**await care.status(), "newest in the log": await newest_round(log_settings)}
        for name, value in told.items():
            typer.echo(f"{name + ':':20}{value}")

    run(work())


@backend_app.command()
def backfill(
    backend: Backend = None,
    option: Options = None,
    first: Annotated[int | None, typer.Option("--from-id", min=0, help="First id; the oldest by default.")] = None,
    last: Annotated[int | None, typer.Option("--to-id", min=0, help="Last id; the newest of now by default.")] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Rounds per second at most; 0: no limit.")] = 0,
) -> None:
    """Put rounds that are already in the table into the log, without those that it has. Go on by running it again."""
    from relay.commands.backfill import backfill as work

    settings = _load(chosen(backend, option))
    _check_cared_for(settings.backend.name, "has no table to fill the log from; stream-relay ingest reads all it has")
    run(work(settings, first=first, last=last, rate=rate, interactive=sys.stderr.isatty()))


def _care(lack: str, backend: str | None, option: list[str] | None, dsn: str | None = None) -> Any:
    """Return the care of the backend; `lack` says what it means to this command that a backend has none."""
    from backends.contract import BackendError

    settings = _load(chosen(backend, option)).backend
    _check_cared_for(settings.name, lack)
    try:
        from backends.postgres.admin import admin_of

        # A DBA's connection will do where there is no other.
        given = settings.options if dsn is None else {"dsn": dsn, **settings.options}
        return admin_of(settings.name, given).acting_as(dsn)
    except BackendError as error:
        fail(str(error))
    except ImportError as error:
        fail(f"{error}; install it with: pip install 'stream-relay[postgres]'")


def _check_cared_for(name: str, lack: str) -> None:
    from backends.registry import known_backends

    if name in known_backends() and name not in WITH_ADMIN:
        fail(f"backend {name!r} {lack}; this command is for: {', '.join(WITH_ADMIN)}")


def _print(sql_of: Callable[[], list[str]]) -> None:
    from backends.contract import BackendError

    try:
        statements = sql_of()
    except BackendError as error:
        fail(str(error))
    typer.echo("\n\n".join(f"{sql.rstrip(';')};" for sql in statements))
