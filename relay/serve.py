"""Compose a relay from its parts, run it, and take it down in the right order.

Lifetimes nest: leaving them in reverse is the shutdown order. Long-lived tasks stand in one task group, so that the
process stops when one of them dies.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from aiohttp import web

from auth.keys import InvalidKeys, KeyStore
from auth.tokens import TokenSigner
from backends.tasks import ended
from relay.admission import Admission
from relay.app import build_app
from relay.capacity import PROTOCOLS, capacity_of
from relay.edge import Edge
from relay.errors import StartError
from relay.feed import Feed
from relay.health import Health
from relay.heartbeat import Heartbeats
from relay.history import History
from relay.http_protocol import protocol_factory
from relay.hub import Hub
from relay.log_reader import LogReader
from relay.open_files import allow_links
from relay.ring import Ring
from relay.rpc.methods import Methods
from relay.rpc.server import listening_grpc
from relay.rpc.service import DataStream
from relay.sections import AuthSettings, HttpSettings
from relay.settings import Settings
from rounds import Catalogue, InvalidCatalogue

log = structlog.get_logger()

_BACKLOG: Final = 4096
"""Connections that may wait to be accepted: a deploy brings them all at once."""
_SOCKET_OPTIONS: Final = {
    "TCP_USER_TIMEOUT": 30_000,  # ms that bytes may be unacknowledged: SSE has no pong to miss
    # Bytes that the kernel takes ahead of the network. It would take 4 MB, which count towards a container's memory,
    # before we see that a client is slow. With much less a replay's line would run dry between turns of a busy loop.
    "TCP_NOTSENT_LOWAT": 128 << 10,
}
"""Of every connection to the HTTP port, where the system has them. See docs/benchmarks.md, fan-out."""
_CLOSING_S: Final = 1.0


class Addresses(NamedTuple):
    """Where a relay listens, and how to wait until it takes clients."""

    url: str  # of HTTP
    grpc_port: int
    ready: Callable[[], Awaitable[None]]


async def serve(settings: Settings) -> None:
    """Run a relay until SIGTERM or SIGINT, then drain it.

    Raises:
        StartError: Something is missing or wrong; ``str()`` says what.
        LogError: The log is there but is not as configured.
    """
    keys, signer = load_credentials(settings.auth)
    async with running_relay(settings, keys, signer):
        await stop_requested()
        log.info("stop_requested")


@asynccontextmanager
async def running_relay(
    settings: Settings, keys: KeyStore, signer: TokenSigner, *, home: str | None = None
) -> AsyncIterator[Addresses]:
    """Run a relay for as long as the block lasts; yield where it listens. Leaving the block drains it.

    Args:
        settings: All of them.
        keys: Who may come in.
        signer: Makes and checks stream tokens.
        home: HTML to show at ``/``; None: nothing is there.

    Raises:
        StartError: Something is missing or wrong; ``str()`` says what.
    """
    catalogue = load_catalogue(settings.games_file)
    _check_games(keys, catalogue)
    links = settings.links
    ring = Ring(rounds_per_game=settings.replay.ring_rounds, bytes_per_game=settings.replay.ring_bytes)
    hub = Hub(ring, unsent_bytes=links.unsent_bytes, linger_s=links.linger_s)
    reader = LogReader(settings.nats)
    feed = Feed(settings.nats, hub, reader)
    history = History(hub, reader, concurrent=settings.replay.concurrent)
    capacity = capacity_of(links, grpc_tls=settings.grpc.tls_cert_file is not None)
    max_links = {protocol: capacity.fit(protocol) for protocol in PROTOCOLS}
    allow_links(max(max_links.values()))
    admission = Admission(keys, signer, capacity=capacity, retry_ms=links.retry_ms)
    heartbeats = Heartbeats(hub, interval_s=links.heartbeat_s, retry_ms=links.retry_ms)
    edge = Edge(hub, feed, admission, heartbeats, links)
    methods = Methods(edge, history, catalogue, settings.grpc)
    app = build_app(edge, history, catalogue, methods, Health(edge.obstacle), home=home)
    async with reader, asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(feed.run(), name="feed"),
            tasks.create_task(heartbeats.run(), name="heartbeats"),
        ]
        async with (
            _listening(app, settings.http) as url,
            listening_grpc(
                settings.grpc,
                DataStream(edge, history, catalogue, methods).handler(),
                edge.obstacle,
                max_links=max_links["grpc"],
            ) as port,
        ):
            log.info("relay_listening", url=url, grpc_port=port, max_links=max_links)
            try:
                yield Addresses(url, port, feed.reached)
            finally:
                await edge.drain(settings.drain)
        await ended(*running)


def load_credentials(settings: AuthSettings) -> tuple[KeyStore, TokenSigner]:
    """Read the keys and token secrets; raise `StartError` when there are none or they are wrong."""
    file_text = "" if settings.keys_file is None else _read(settings.keys_file, "RELAY_AUTH_KEYS_FILE")
    try:
        keys = KeyStore.load(text=settings.keys.get_secret_value(), file_text=file_text)
        if not len(keys):
            raise StartError(
                "no API keys: set RELAY_AUTH_KEYS or RELAY_AUTH_KEYS_FILE; make one with: stream-relay key new"
            )
        secrets = settings.token_secrets.get_secret_value()
        if not secrets:
            raise StartError(
                "RELAY_AUTH_TOKEN_SECRETS is not set; all relays need the same; make one with: stream-relay key secret"
            )
        return keys, TokenSigner.parse(secrets)
    except InvalidKeys as error:
        raise StartError(str(error)) from error


def load_catalogue(games_file: Path | None) -> Catalogue:
    """Read the games; raise `StartError` when the operator's file is wrong."""
    try:
        return Catalogue.load(None if games_file is None else _read(games_file, "RELAY_GAMES_FILE"))
    except InvalidCatalogue as error:
        raise StartError(f"{games_file}: {error}") from error


def _check_games(keys: KeyStore, catalogue: Catalogue) -> None:
    """Refuse a key for a game that there is not: a misspelt one would open nothing, and nobody would be told."""
    for key in keys.keys():  # noqa: SIM118 - a store is no mapping
        if unknown := sorted((key.games or frozenset()) - catalogue.slugs):
            raise StartError(
                f"key {key.id!r}: games holds {unknown[0]!r}, which is not in the catalogue; "
                f"known games: {', '.join(sorted(catalogue.slugs))}"
            )


async def stop_requested() -> None:
    """Wait for SIGTERM or SIGINT. A second one kills the process at once, as if we had no handler."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    await stop.wait()


@asynccontextmanager
async def _listening(app: web.Application, settings: HttpSettings) -> AsyncIterator[str]:
    listener = _bind(settings)
    # handler_cancellation: a stream of the gRPC proxy must end when its client leaves, and a slow answer may.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CLOSING_S)
    await runner.setup()
    factory = protocol_factory(runner, request_s=settings.request_s)
    server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=_BACKLOG)
    try:
        host, port = listener.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        yield f"http://{shown}:{port}"
    finally:
        server.close()
        await runner.cleanup()


def _bind(settings: HttpSettings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "choose another port with RELAY_HTTP_PORT"
        ) from error
    listener.setblocking(False)
    for name, value in _SOCKET_OPTIONS.items():  # inherited by every accepted connection
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):  # sandboxes do not know all that Linux does
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{setting}={str(path)!r} cannot be read: {error}") from error
