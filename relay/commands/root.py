"""The commands of ``stream-relay``. Reads arguments, loads settings, hands over; errors become one line on stderr.

Imports what a command needs only when it runs: `serve` is on the cold-start path of serverless platforms.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from relay.commands import backend as backend_commands
from relay.commands.client import commands as client_commands
from relay.commands.run import fail
from relay.commands.run import run as run_command

app = typer.Typer(
    name="stream-relay",
    help="Live game rounds from your database to WebSocket, SSE and gRPC clients within milliseconds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
key_app = typer.Typer(no_args_is_help=True, help="Make API keys and token secrets.")
app.add_typer(key_app, name="key")
client_commands.add_to(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"stream-relay {version('stream-relay')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings as TOML; the environment (RELAY_...) wins over it.")
    ] = None,
) -> None:
    if config is not None:
        os.environ["RELAY_CONFIG"] = str(config)


Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP port; 0 lets the system choose.")]
GrpcPort = Annotated[int | None, typer.Option(min=0, max=65535, help="gRPC port, 50051 by default; 0: any.")]


@app.command()
def dev(
    port: Port = None,
    grpc_port: GrpcPort = None,
    backend: Annotated[
        Literal["file", "postgres-replication", "postgres-notify"] | None,
        typer.Option(help="Play rounds from a file, or into a real database that they are captured from."),
    ] = None,
) -> None:
    """Run everything on this machine: NATS, recorded rounds as if live, a relay. For trying it out."""
    from rich.console import Console

    from relay.config.settings import origins
    from relay.demo.dev import dev as run
    from relay.demo.dev import passed_over

    given = _ports(port, grpc_port)
    if backend is not None:
        given["backend"] = {"name": backend}
    settings = _settings(given, log_level="warning")
    if unused := passed_over(origins()):
        print(f"stream-relay: dev has parts of its own and passes over {', '.join(unused)}", file=sys.stderr)
    run_command(run(settings, out=Console()))


@app.command()
def serve(host: Host = None, port: Port = None, grpc_port: GrpcPort = None) -> None:
    """Run a relay: the log in; WebSocket, SSE and REST out on the HTTP port, gRPC on a port of its own (50051)."""
    from relay.serve import serve as run

    given = _ports(port, grpc_port)
    if host is not None:
        given["http"] = {"host": host} | given.get("http", {})
    run_command(run(_settings(given)))


@app.command()
def ingest(
    backend: Annotated[str | None, typer.Option(help="Name of the backend; the settings' by default.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="A backend option, NAME=VALUE.")] = None,
) -> None:
    """Run a backend: capture rounds from their source and publish them to the log."""
    from relay.commands.ingest import ingest as run

    run_command(run(_settings(backend_commands.chosen(backend, option))))


@app.command()
def config(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of a table.")] = False,
) -> None:
    """Print the settings in force and where each can be set; secrets are masked."""
    from relay.commands.show_config import show

    show(_settings({}), as_json=as_json)


@key_app.command("new")
def key_new(
    kind: Annotated[Literal["private", "public"], typer.Option(help="private: servers; public: browsers.")] = "private",
    key_id: Annotated[str, typer.Option("--id", help="What the logs call the client.")] = "client1",
) -> None:
    """Make an API key. It is shown once; only its hash is kept in the settings."""
    from auth.keys import EXAMPLE_ORIGIN, InvalidKeys, generate, line_entry

    secret, stored = generate(kind)
    try:
        entry = line_entry(key_id, kind, stored)
    except InvalidKeys as error:
        fail(str(error))
    origins = f"; put the origins of your pages in place of {EXAMPLE_ORIGIN}" if kind == "public" else ""
    # What may be piped on stdout, what it is on stderr: a terminal shows each value below its name.
    print("key, for the client; it is not shown again:", file=sys.stderr)
    print(secret, flush=True)
    print(f"entry, for RELAY_AUTH_KEYS{origins}:", file=sys.stderr)
    print(entry, flush=True)


@key_app.command("secret")
def key_secret() -> None:
    """Make a secret for RELAY_AUTH_TOKEN_SECRETS."""
    import secrets

    print(f"k{secrets.token_hex(2)}:{secrets.token_urlsafe(32)}")


def _ports(http: int | None, grpc: int | None) -> dict[str, Any]:
    """Give ports from the command line their places in the settings."""
    return {section: {"port": port} for section, port in (("http", http), ("grpc", grpc)) if port is not None}


def _settings(overrides: dict[str, Any], *, log_level: str | None = None) -> Any:
    """Load settings and set up logging; stop with one line per fault."""
    from relay.config.logs import configure
    from relay.config.settings import InvalidSettings, load

    try:
        settings = load(overrides)
    except InvalidSettings as error:
        fail(str(error))
    level = settings.log.level if log_level is None or "level" in settings.log.model_fields_set else log_level
    configure(log_format=settings.log.format, level=level)
    return settings


backend_commands.add_to(app, _settings)
