"""``stream-relay dev``: the whole product on this machine, with real embedded servers. Not for production.

Owns the demo: a real nats-server, recorded rounds with the current time, a relay on loopback, and commands to paste.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import SecretStr
from rich.console import Console

from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY, generate, stored
from auth.tokens import TokenSigner
from backends.backend_settings import BackendSettings
from backends.contract import BackendContext
from backends.ingest.run_ingest import run_ingest
from backends.recordings import bundled
from backends.registry import make_backend
from relay.config.catalogue import load_catalogue
from relay.config.sections import DrainSettings
from relay.config.settings import Settings
from relay.demo.embedded_nats import nats_server
from relay.http.connections.loopback import loopback_only
from relay.serve import Addresses, running_relay
from relay.signals import Reloads, stop_requested
from roundlog.log_settings import CONNECTION_FIELDS
from roundlog.tasks import cancel_and_wait, raise_if_cancelled

_DEMO_BACKEND: Final = {"loop": True, "shift_to_now": True, "speed": 10}
"""The slowest game of the recording finishes a round every 30 s; at ten times the speed, a user waits at most 3 s."""

_POSTGRES: Final = ("postgres-replication", "postgres-notify")
_POSTGRES_HINT: Final = """
  [dim]insert a round while curl runs:[/]
    {psql} \\
      -c "INSERT INTO rounds (game_slug, extras) VALUES ('crash', '{{\\"point\\": \\"777.77\\"}}')"
"""


_OWN: Final = (
    "http.host",
    "grpc.host",
    "auth.",
    "drain.",
    *(f"nats.{name}" for name in CONNECTION_FIELDS),
)
"""Settings that the demo overrides: it has its own nats-server and two keys, listens on loopback, and stops at once."""


def ignored_settings(given: Iterable[str]) -> list[str]:
    """Return the variables of those given settings (as ``section.field``) that the demo overrides."""
    return sorted(f"RELAY_{path.replace('.', '_')}".upper() for path in given if path.startswith(_OWN))


async def dev(settings: Settings, *, out: Console) -> None:
    """Run the demo until SIGINT or SIGTERM.

    Raises:
        StartError: A part cannot start, or the nats-server has ended (then in a group); ``str()`` says why.
    """
    context = BackendContext(catalogue=load_catalogue(settings.games_file))
    with Reloads().listening():  # SIGHUP must not end it, except when its terminal is closed
        await _run(settings, context, out)


async def _run(settings: Settings, context: BackendContext, out: Console) -> None:
    async with nats_server() as nats, _demo_source(settings.backend, context) as source:
        own_nats = (
            dict.fromkeys(CONNECTION_FIELDS)
            | {"url": nats.url, "user": nats.user}
            | {"password": SecretStr(nats.password)}
        )
        settings = settings.model_copy(
            update={
                "http": settings.http.model_copy(update={"host": "127.0.0.1"}),
                "grpc": settings.grpc.model_copy(update=_grpc_address(settings)),
                "nats": settings.nats.model_copy(update=own_nats),
                "backend": source.backend,
                "drain": DrainSettings(grace_s=1, margin_s=1),  # Ctrl-C stops at once
            }
        )
        backend = make_backend(settings.backend.name, settings.backend.options, context)
        async with (
            running_relay(
                settings,
                source.keys,
                TokenSigner.ephemeral(),
                home=_page(),
                checks=[loopback_only(origins=source.own_key is not None)],
            ) as at,
            asyncio.TaskGroup() as tasks,
        ):
            ingest = tasks.create_task(run_ingest(backend, settings.nats, name=settings.backend.name), name="ingest")
            try:
                await at.ready()
                raise_if_cancelled()
                _welcome(out, at, source, _grpc_url(settings, at))
                await stop_requested()
            finally:
                await cancel_and_wait(ingest)


class _Source(NamedTuple):
    backend: BackendSettings
    hint: str = ""  # another command to paste
    own_key: str | None = None
    """A key for rounds that are not the demo's: everybody knows the demo's key."""

    @property
    def keys(self) -> KeyRing:
        if self.own_key is None:
            return KeyRing.demo()
        return KeyRing([Key("dev", "private", secrets=(stored(self.own_key),))])


@asynccontextmanager
async def _demo_source(settings: BackendSettings, context: BackendContext) -> AsyncIterator[_Source]:
    """Yield the configured source; by default the bundled recording, from its file or inserted into a database."""
    recording = {"path": str(bundled()), **_DEMO_BACKEND}
    if settings.name == "file" and settings.options.get("path", recording["path"]) == recording["path"]:
        # The user may have set another speed.
        yield _Source(BackendSettings.model_validate({"name": "file", **recording, **settings.options}))
    elif settings.options or settings.name not in _POSTGRES:
        own_key, _ = generate("private")
        yield _Source(settings, own_key=own_key)
    else:
        from relay.demo.demo_postgres import demo_database

        async with demo_database(settings.name, recording, context) as database:
            yield _Source(database.backend, _POSTGRES_HINT.format(psql=database.psql))


def _grpc_address(settings: Settings) -> dict[str, object]:
    """Return loopback; when the system chooses the HTTP port, it also chooses the gRPC port."""
    return {"host": "127.0.0.1"} | ({"port": 0} if settings.http.port == 0 else {})


def _page() -> str | None:
    """Return the browser sample, from the source tree or the wheel."""
    package = Path(__file__).parents[1]
    for path in (package.parent / "samples/browser/index.html", Path(__file__).parent / "demo.html"):
        if path.exists():
            return path.read_text("utf-8")
    return None


def _command() -> str:
    """Return the command to paste: ``stream-relay`` if it is on the PATH, else its path, such as in ``.venv/bin``."""
    called = Path(sys.argv[0])
    on_path = shutil.which("stream-relay")
    if called.name != "stream-relay" or (on_path is not None and called.exists() and called.samefile(on_path)):
        return "stream-relay"
    return str(called)


def _grpc_url(settings: Settings, at: Addresses) -> str | None:
    """Return the URL at which the command line's client finds gRPC; None where it is off."""
    if at.grpc_port:
        return f"{'grpc' if settings.grpc.tls_cert_file is None else 'grpcs'}://127.0.0.1:{at.grpc_port}"
    return at.url.replace("http://", "grpc://") if settings.http.h2c else None


def _welcome(out: Console, at: Addresses, source: _Source, grpc_url: str | None) -> None:
    """Print the addresses of the demo, and commands that can be pasted unchanged."""
    url, command = at.url, _command()
    grpc = "" if grpc_url is None else f"    {command} tail crash --via grpc --url {grpc_url}\n"
    curl, first, key = f"curl -N -H 'X-API-Key: {DEMO_KEY}' {url}/sse/crash", "", DEMO_KEY
    note = "(works here only)"
    if source.own_key is not None:
        # Standard input, since every account of the machine can read arguments.
        curl = f'curl -N -H @- {url}/sse/crash <<< "X-API-Key: $API_KEY"'
        first = (
            f"\n  [dim]the key of this run, which the commands below read:[/]\n    export API_KEY={source.own_key}\n"
        )
        key, note = source.own_key, "(a new one each time; enter it in the browser)"
    out.print(
        f"""
[bold green]stream-relay is up[/]  {url}
{first}
  [dim]rounds of one game over SSE:[/]
    {curl}
{source.hint}
  [dim]all games over WebSocket, or one over SSE or gRPC; reconnects without missing a round:[/]
    {command} tail --url {url}
    {command} tail crash --via sse --url {url}
{grpc}
  [dim]in the browser:[/]  {url}/
  [dim]sample clients:[/]  samples/
  [dim]the demo's key:[/]  {key}  [dim]{note}[/]

Ctrl-C stops everything.
""",
        highlight=False,
        soft_wrap=True,
    )
