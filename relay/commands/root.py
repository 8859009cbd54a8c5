"""The command line of ``stream-relay``: read arguments, load settings, run a command. Errors are one line on stderr.

A command's imports happen only when it runs: `serve` is on the cold-start path of serverless platforms.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from relay.commands import backend_commands
from relay.commands.client import commands as client_commands
from relay.commands.keys import admin_commands, key_commands
from relay.commands.run import fail, load_settings
from relay.commands.run import run as run_command

app = typer.Typer(
    name="stream-relay",
    help="Live game rounds from your database to WebSocket, SSE and gRPC clients within milliseconds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
key_app = typer.Typer(no_args_is_help=True, help="Make, change and take back API keys; make token secrets.")
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
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings as TOML; the environment (RELAY_...) overrides it.")
    ] = None,
) -> None:
    if config is not None:
        os.environ["RELAY_CONFIG"] = str(config)


Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP port; 0 lets the system choose.")]
GrpcPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="gRPC port, 50051 by default; 0 lets the system choose.")
]


@app.command()
def dev(
    port: Port = None,
    grpc_port: GrpcPort = None,
    backend: Annotated[
        Literal["file", "postgres-replication", "postgres-notify"] | None,
        typer.Option(help="Play rounds from a file, or insert them into a real database and capture them from it."),
    ] = None,
) -> None:
    """Run a demo on this machine: NATS, recorded rounds with the current time, a relay. Not for production."""
    from rich.console import Console

    from relay.config.settings import origins
    from relay.demo.dev import dev as run
    from relay.demo.dev import ignored_settings

    given = _ports(port, grpc_port)
    if backend is not None:
        given["backend"] = {"name": backend}
    settings = load_settings(given, log_level="warning")
    if unused := ignored_settings(origins()):
        print(f"stream-relay: dev has its own parts and ignores {', '.join(unused)}", file=sys.stderr)
    run_command(run(settings, out=Console()))


@app.command()
def serve(host: Host = None, port: Port = None, grpc_port: GrpcPort = None) -> None:
    """Run a relay from the log to clients: WebSocket, SSE and REST on the HTTP port, gRPC on another port (50051)."""
    from relay.serve import serve as run

    given = _ports(port, grpc_port)
    if host is not None:
        given["http"] = {"host": host} | given.get("http", {})
    run_command(run(load_settings(given)))


@app.command()
def ingest(
    backend: Annotated[str | None, typer.Option(help="Name of the backend; by default that of the settings.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="A backend option, NAME=VALUE.")] = None,
) -> None:
    """Run a backend: capture rounds from their source and publish them to the log."""
    from relay.commands.ingest_command import ingest as run

    run_command(run(load_settings(backend_commands.chosen(backend, option))))


@app.command()
def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print every setting with its value and the source of the value. Secrets are masked."""
    from relay.commands.show_config import show

    show(load_settings({}), as_json=as_json)


@key_app.command("new")
def key_new(
    kind: Annotated[
        Literal["private", "public"], typer.Option(help="private: for servers; public: for browsers.")
    ] = "private",
    key_id: Annotated[str, typer.Option("--id", help="The id of the key, shown in logs.")] = "client1",
) -> None:
    """Make an API key. It is shown once; the settings contain only its hash."""
    from auth.key import EXAMPLE_ORIGIN, InvalidKeys
    from auth.key_forms import line_entry
    from auth.key_secret import generate

    secret, stored = generate(kind)
    try:
        entry = line_entry(key_id, kind, stored)
    except InvalidKeys as error:
        fail(str(error))
    origins = f"; replace {EXAMPLE_ORIGIN} by the origins of your pages" if kind == "public" else ""
    # Values go to stdout, for pipes; their names go to stderr. A terminal shows each value below its name.
    print("key for the client, not shown again:", file=sys.stderr)
    print(secret, flush=True)
    print(f"entry for RELAY_AUTH_KEYS{origins}:", file=sys.stderr)
    print(entry, flush=True)


@key_app.command("secret")
def key_secret() -> None:
    """Make an entry for RELAY_AUTH_TOKEN_SECRETS."""
    import secrets

    print(f"k{secrets.token_hex(2)}:{secrets.token_urlsafe(32)}")


def _ports(http: int | None, grpc: int | None) -> dict[str, Any]:
    """Return the settings of the ports given on the command line."""
    return {section: {"port": port} for section, port in (("http", http), ("grpc", grpc)) if port is not None}


backend_commands.add_to(app, load_settings)
key_commands.add_to(key_app, load_settings)
admin_commands.add_to(app, load_settings)
