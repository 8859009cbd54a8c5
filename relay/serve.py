"""Compose a relay from its parts, run it, and shut it down in order.

Context managers nest: shutdown leaves them in reverse. Long-lived tasks are in one task group, so that the process
stops when one of them fails.
"""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Final, NamedTuple

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from auth.key import Limits as KeyLimits
from auth.key_ring import KeyRing
from auth.revocations import Revocations
from auth.tokens import TokenSigner
from relay.admission.capacity import PROTOCOLS, capacity_of, held_bytes_limit
from relay.admission.gate import Admission
from relay.admission.held_bytes import HeldBytes
from relay.admission.key_policy import KeyPolicy
from relay.admission.limits.limits import ClientLimits
from relay.admission.limits.shared_use import SharedUse
from relay.admission.open_files import shared_files
from relay.admission.strangers import Share
from relay.admission.unread_answers import UnreadAnswers
from relay.config.catalogue import load_catalogue
from relay.config.key_files import check_games, load_credentials
from relay.config.key_stores import FollowedStores
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import PortUnavailable
from relay.history.history import History
from relay.history.reading.payer import Payers
from relay.http.application import build_app
from relay.http.connections.guarded import ConnectionLimits
from relay.http.connections.listener import Listener
from relay.http.connections.quick_refusals import QuickRefusals
from relay.http.monitoring.exposition import listening_socket, serving_probes
from relay.http.monitoring.metrics import Metrics
from relay.http.monitoring.operator_paths import operator_routes, paths_in_words
from relay.http.monitoring.probes import Probes
from relay.http.protocol import protocol_factory
from relay.http.rest import Rest
from relay.http.routes import Routes
from relay.http.takeover import check_aiohttp
from relay.http.tokens.identities import Identities
from relay.http.tokens.provider_keys import provider_keys
from relay.http.tokens.token_routes import TokenRoutes
from relay.http.websocket.websockets_check import check_websockets_after
from relay.links.link_registry import LinkRegistry
from relay.live.ending import Ender, ReconnectDelays
from relay.live.following.feed import Feed
from relay.live.heartbeat import Heartbeats
from relay.live.hub import Hub
from relay.live.ring import Ring
from relay.rpc.connect.proxy import Proxy
from relay.rpc.methods import Methods
from relay.rpc.server import listening_grpc
from relay.rpc.service import DataStream
from relay.signals import Reloads, stop_requested
from relay.turns import Turns
from relay.usage.usage_reporter import UsageReporter
from roundlog.reader import LogReader
from roundlog.tasks import cancel_and_wait
from rounds import Catalogue

log = structlog.get_logger()

_BACKLOG: Final = 4096
"""Connections that may wait to be accepted: after a deploy all clients reconnect at once."""
_SOCKET_OPTIONS: Final = {
    "TCP_USER_TIMEOUT": 30_000,  # ms until unacknowledged bytes end a connection: SSE has no pongs
    # Quiet streams write nothing: probes by the kernel find a peer that is gone, in 20 + 10 s with the timeout above.
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    # Bounds the unsent bytes in the kernel's buffer of a slow reader. The default is 4 MB, which count towards a
    # container's memory and hide a slow client. With much less, replays would stall while the loop is busy.
    "TCP_NOTSENT_LOWAT": 128 << 10,
}
"""Set on every connection to the HTTP port, where the system has them. See docs/benchmarks.md, fan-out."""
_COLLECTIONS: Final = (700, 3, 300)
"""Python's thresholds: a collection of the second generation, of some 2,000 objects, takes 1 ms; by default 4 ms. After
300 of them a full one may follow."""
_CLOSING_S: Final = 1.0


class Addresses(NamedTuple):
    """Where a relay listens, and how to wait until it is ready."""

    url: str  # of HTTP
    grpc_port: int
    ready: Callable[[], Awaitable[None]]


async def serve(settings: Settings) -> None:
    """Run a relay until SIGTERM or SIGINT, then drain it.

    Raises:
        StartError: A setting, a file, a port or a library is not as required; ``str()`` says which.
        LogError: The log exists but differs from its configuration.
    """
    reloads = Reloads()
    with reloads.listening():
        keys, token_keys = load_credentials(settings.auth)
        stores = FollowedStores(keys, settings.auth, settings.nats, Revocations())
        reloads.add(stores.reload)
        reloads.add(token_keys.reload)
        async with token_keys, running_relay(settings, keys, token_keys.signer, stores):
            _bound_collections()
            await stop_requested()
            log.info("stop_requested")


def _bound_collections() -> None:
    """Bound what Python's garbage collector does at a time, since no client is served meanwhile.

    All that was loaded stays: each full collection would look at it for 40 ms. What links hold is freed without
    collections, and a full one looks at it for 1.6 us an object; so there are few. The others are short.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)


@asynccontextmanager
async def running_relay(
    settings: Settings,
    keys: KeyRing,
    signer: TokenSigner,
    stores: FollowedStores | None = None,
    *,
    revocations: Revocations | None = None,
    home: str | None = None,
    checks: Iterable[Middleware] = (),
) -> AsyncIterator[Addresses]:
    """Run a relay while the block runs; yield where it listens. Leaving the block drains it.

    Args:
        settings: All settings.
        keys: The API keys that are admitted.
        signer: Makes and checks stream tokens.
        stores: Where keys come from; None: `keys` are all there are.
        revocations: Tokens and subjects that are refused; those of `stores` by default, else none.
        home: HTML to show at ``/``; None for no such page.
        checks: Middlewares that refuse requests.

    Raises:
        StartError: A setting, a file, a port or a library is not as required; ``str()`` says which. In a group when
            the relay was ready: the library `websockets` is checked after that.
    """
    check_aiohttp()
    catalogue = load_catalogue(settings.games_file)
    check_games(keys, catalogue)
    if stores is not None:
        stores.know(catalogue)
        revocations = stores.revocations if revocations is None else revocations
    links = settings.links
    ring = Ring(rounds_per_game=settings.replay.ring_rounds, bytes_per_game=settings.replay.ring_bytes)
    hub = Hub(ring, unsent_bytes=links.unsent_bytes)
    delays = ReconnectDelays(links.retry_ms)
    ender = Ender(hub, delays, linger_s=links.linger_s)
    reader = LogReader(settings.nats)
    feed = Feed(settings.nats, hub, reader)
    turns = Turns()
    history = History(hub, reader, turns, concurrent=settings.replay.concurrent)
    capacity = capacity_of(links, grpc_tls=settings.grpc.tls_cert_file is not None)
    files = shared_files(max(capacity.fit(protocol) for protocol in PROTOCOLS))
    capacity = capacity.within("files", files.links, files.costs)
    max_links = {protocol: capacity.fit(protocol) for protocol in PROTOCOLS}
    strangers, guests = Share(files.strangers), Share(files.guests)
    limits = ClientLimits(settings.limits, own_limits=partial(_limits_of, keys), retry_ms=delays.after_refusal)
    admission = Admission(
        keys,
        signer,
        capacity=capacity,
        delays=delays,
        revocations=revocations,
        strangers=strangers,
        guests=guests,
        policy=KeyPolicy(keys, delays, settings=settings.auth, stores=None if stores is None else stores.layers),
        limits=limits,
        payers=Payers(limits.log_meter),
    )
    held = HeldBytes(held_bytes_limit())
    proxies = TrustedProxies.parse(settings.http.trusted_proxies)
    heartbeats = Heartbeats(interval_s=links.heartbeat_s, on_stall=hub.expect_backlog)
    registry = LinkRegistry(hub, feed, admission, heartbeats, ender, links)
    quick = QuickRefusals(admission, registry.refusals, proxies)
    connections = ConnectionLimits(strangers, guests, settings.http.request_s, held, quick)
    methods = Methods(registry, history, catalogue, settings.grpc)
    provider = provider_keys(settings.identity)
    identities = None if provider is None else Identities(settings.identity.rules(), provider, catalogue)
    metrics = Metrics(registry, history, held)
    routes = routes_of(
        registry, history, catalogue, methods, identities=identities, metrics=metrics, http=settings.http
    )
    app = build_app(
        routes,
        home=home,
        refusals=registry.refusals,
        checks=checks,
        proxies=proxies,
        paths=paths_in_words(settings.http.docs),
    )
    unread = UnreadAnswers(held.most // 2, retry_ms=delays.after_refusal)
    service = DataStream(registry, history, catalogue, methods, proxies, unread=unread)
    closers: list[Callable[[], None]] = []
    registry.refusals.credentials.settings = settings.audit
    admission.accounts.in_metrics = settings.usage.metrics
    reporter = UsageReporter(
        admission.accounts,
        registry.settle_usage,
        settings.usage,
        settings.nats,
        also=registry.refusals.credentials,
    )
    app.on_response_prepare.append(partial(_end_keep_alive, admission))
    probing = serving_probes(
        metrics.scrape,
        registry.obstacle,
        host=settings.http.host,
        port=settings.http.monitor_port,
        setting="RELAY_HTTP_MONITOR_PORT",
        facts=registry.facts,
    )
    shared = SharedUse(limits, settings.nats) if settings.limits.shared else None
    async with (
        reader,
        provider or nullcontext(),
        probing as monitor_port,
        _administration(settings),
        asyncio.TaskGroup() as tasks,
    ):
        running = [
            tasks.create_task(feed.run(), name="feed"),
            tasks.create_task(heartbeats.run(), name="heartbeats"),
            tasks.create_task(registry.revoker.run(), name="revoker"),
            tasks.create_task(check_websockets_after(feed.reached), name="check-websockets"),
            tasks.create_task(reporter.run(), name="usage"),
        ]
        if stores is not None:
            running.append(tasks.create_task(stores.run(), name="key-stores"))
        if shared is not None:
            running.append(tasks.create_task(shared.connect(), name="relay-bus"))
            running.append(tasks.create_task(shared.run(), name="shared-use"))
        try:
            async with (
                _listening(app, settings.http, connections, turns, closers) as url,
                listening_grpc(
                    settings.grpc,
                    service.handler(),
                    registry.obstacle,
                    check_key=service.grant,
                    proxies=proxies,
                    max_links=max_links["grpc"],
                    connections=files.grpc_connections,
                    closers=closers,
                ) as port,
            ):
                also = {} if monitor_port is None else {"monitor_port": monitor_port}
                log.info("relay_listening", url=url, grpc_port=port, max_links=max_links, bound=capacity.bound, **also)
                try:
                    yield Addresses(url, port, feed.reached)
                finally:
                    if shared is not None:
                        await shared.leave()
                    await registry.drain(settings.drain, close_listeners=partial(_close, closers))
        finally:  # a task group cancels its tasks only once, and would wait forever for a task that swallowed it
            await cancel_and_wait(*running)


def _limits_of(keys: KeyRing, key_id: str) -> KeyLimits | None:
    """Return the limits of a key as they are now; None when the key is not known."""
    key = keys.get(key_id)
    return None if key is None else key.limits


def routes_of(
    registry: LinkRegistry,
    history: History,
    catalogue: Catalogue,
    methods: Methods,
    *,
    identities: Identities | None = None,
    metrics: Metrics | None = None,
    http: HttpSettings | None = None,
) -> Iterator[Iterable[web.RouteDef]]:
    """Yield the routes of all parts that answer on the HTTP port."""
    http = http or HttpSettings()
    yield Routes(registry, history, catalogue).table()
    yield TokenRoutes(registry, catalogue, identities).table()
    yield Rest(registry, history, catalogue).table()
    yield Probes(registry.obstacle, lambda obstacle: registry.facts(obstacle)).table()
    yield from operator_routes(http, metrics or Metrics(registry, history), registry)
    yield Proxy(registry, history, catalogue, methods).table()


@asynccontextmanager
async def _administration(settings: Settings) -> AsyncIterator[None]:
    """Serve the admin API while the block runs, when it has a port."""
    if settings.admin.port is None:
        yield
        return
    from relay.admin.api.serve_admin import serving_admin
    from relay.admin.chosen_store import chosen_store

    async with serving_admin(settings, chosen_store(settings)):
        yield


async def _end_keep_alive(admission: Admission, _request: web.Request, response: web.StreamResponse) -> None:
    """Close a connection after its answer while the relay drains: a balancer would keep it and send more requests."""
    if admission.draining:
        response.headers["Connection"] = "close"
        response.force_close()


def _close(closers: Iterable[Callable[[], None]]) -> None:
    """Accept no more connections. Open ones stay."""
    for close in closers:
        close()
    log.info("listeners_closed")


@asynccontextmanager
async def _listening(
    app: web.Application,
    settings: HttpSettings,
    limits: ConnectionLimits,
    turns: Turns,
    closers: list[Callable[[], None]],
) -> AsyncIterator[str]:
    listener = _bind(settings)
    # handler_cancellation: streams of the gRPC proxy must end when their client leaves; slow answers may.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CLOSING_S)
    await runner.setup()
    factory = protocol_factory(runner, limits, turns, keepalive_s=settings.keepalive_s)
    server = Listener(listener, factory, strangers=limits.strangers, turns=turns)
    try:
        host, port = listener.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        closers.append(server.close)
        yield f"http://{shown}:{port}"
    finally:
        server.close()
        await runner.cleanup()
        while limits.strangers.shed_one():  # those whose last answer they still read
            pass


def _bind(settings: HttpSettings) -> socket.socket:
    try:
        listener = listening_socket(settings.host, settings.port, backlog=_BACKLOG)
    except OSError as error:
        raise PortUnavailable(f"{settings.host}:{settings.port}", error, setting="RELAY_HTTP_PORT") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS.items():  # inherited by every accepted connection
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):  # sandboxes may not support every option
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener
