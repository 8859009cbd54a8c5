"""Run a relay, and shut it down in order. Its parts are made in `relay.compose`.

Context managers nest: shutdown leaves them in reverse. Long-lived tasks are in one task group, so that the process
stops when one of them fails.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from aiohttp.typedefs import Middleware

from auth.key_ring import KeyRing
from auth.revocations import Revocations
from auth.tokens import TokenSigner
from relay.compose import Parts, compose
from relay.config.catalogue import load_catalogue
from relay.config.key_files import check_games, load_credentials
from relay.config.key_stores import FollowedStores
from relay.config.settings import Settings
from relay.http.connections.early_import import read_certificates
from relay.http.connections.http_port import listening_http
from relay.http.monitoring.exposition import serving_probes
from relay.http.takeover import check_aiohttp
from relay.http.websocket.websockets_check import check_websockets_after
from relay.http2.h2_machine import check_h2
from relay.rpc.server import listening_grpc
from relay.signals import Reloads, stop_requested
from roundlog.tasks import cancel_and_wait

log = structlog.get_logger()

_COLLECTIONS: Final = (700, 3, 300)
"""Python's thresholds: a collection of the second generation, of some 2,000 objects, takes 1 ms; by default 4 ms. After
300 of them a full one may follow."""

_CERTIFICATES_AFTER_S: Final = 10.0


class Addresses(NamedTuple):
    """Where a relay listens, and how to wait until it is ready."""

    url: str  # of HTTP
    grpc_port: int  # 0: it is off
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
    gc.enable()


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
    check_h2()
    catalogue = load_catalogue(settings.games_file)
    check_games(keys, catalogue)
    if stores is not None:
        stores.know(catalogue)
        revocations = stores.revocations if revocations is None else revocations
    parts = compose(settings, catalogue, keys, signer, stores, revocations=revocations, home=home, checks=checks)
    registry, shared_use = parts.registry, parts.shared_use
    closers: list[Callable[[], None]] = []
    probing = serving_probes(
        parts.metrics.scrape,
        registry.obstacle,
        host=settings.http.host,
        port=settings.http.monitor_port,
        setting="RELAY_HTTP_MONITOR_PORT",
        facts=registry.facts,
    )
    async with (
        parts.reader,
        parts.provider or nullcontext(),
        probing as monitor_port,
        _administration(settings),
        asyncio.TaskGroup() as tasks,
    ):
        running = [tasks.create_task(work, name=name) for name, work in _long_lived(parts, stores)]
        try:
            async with (
                listening_http(parts.app, settings.http, parts.connections, parts.turns, closers) as url,
                listening_grpc(parts.grpc, settings.grpc, closers) as port,
            ):
                also: dict[str, object] = {} if monitor_port is None else {"monitor_port": monitor_port}
                also |= {"h2c": True} if settings.http.h2c else {}
                bound = parts.capacity.bound
                also["sends"] = parts.registry.hub.sends.language
                if settings.http.h2c and settings.grpc.tls_client_ca_file is not None:
                    log.warning("grpc_without_client_certificates", url=url, advice="leave RELAY_HTTP_H2C off")
                log.info("relay_listening", url=url, grpc_port=port, max_links=parts.max_links, bound=bound, **also)
                try:
                    yield Addresses(url, port or 0, parts.feed.reached)
                finally:
                    if shared_use is not None:
                        await shared_use.leave()
                    await registry.drain(settings.drain, close_listeners=partial(_close, closers))
        finally:  # a task group cancels its tasks only once, and would wait forever for a task that swallowed it
            await cancel_and_wait(*running)


def _long_lived(parts: Parts, stores: FollowedStores | None) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Yield what runs as long as the relay, by name."""
    yield "feed", parts.feed.run()
    yield "heartbeats", parts.heartbeats.run()
    yield "revoker", parts.registry.revoker.run()
    yield "certificates", _read_certificates_after(parts.feed.reached)
    yield "check-websockets", check_websockets_after(parts.feed.reached)
    yield "usage", parts.reporter.run()
    yield "http2", parts.grpc.connections.run()
    if stores is not None:
        yield "key-stores", stores.run()
    if parts.shared_use is not None:
        yield "relay-bus", parts.shared_use.connect()
        yield "shared-use", parts.shared_use.run()


async def _read_certificates_after(ready: Callable[[], Awaitable[None]]) -> None:
    """Read what the start has left out, after the first clients of a relay that was started for them are served."""
    await ready()
    await asyncio.sleep(_CERTIFICATES_AFTER_S)
    await asyncio.to_thread(read_certificates)


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


def _close(closers: Iterable[Callable[[], None]]) -> None:
    """Accept no more connections. Open ones stay."""
    for close in closers:
        close()
    log.info("listeners_closed")
