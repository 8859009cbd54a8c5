"""Two relays whose keys are in a bucket of NATS: what is written there ends links on both."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import aiohttp
import pytest

from auth.key import Key, StoredSecret
from auth.key_secret import generate, stored
from auth.revocations import Revocation
from auth.stores.key_layers import KeyLayer, KeyLayers
from auth.stores.nats_keys import NatsKeys
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.network.forwarder import Forwarder, copy, until_one_ends
from tests.network.streams import Streams
from tests.relay.conftest import token_of
from tests.revocation.conftest import (
    END_S,
    OTHER,
    OTHER_SECRET,
    PROTOCOLS,
    REVOKED,
    SECRET,
    OpenLink,
    Relays,
    StartRelays,
    id_of,
    links_of_all_protocols,
    websocket_end,
)
from tests.waiting import until

pytestmark = pytest.mark.service


class Road(Forwarder):
    """The way of the relays to their store; their log has another one."""

    scheme = "nats"

    def __init__(self, server: NatsServer) -> None:
        super().__init__()
        self._server = server
        self.is_open = True

    async def target(self) -> int:
        if not self.is_open:
            raise OSError("closed")
        return self._server.port

    async def carry(self, near: Streams, far: Streams) -> None:
        await until_one_ends(copy(near.reader, far.writer), copy(far.reader, near.writer))


def is_read(layer: KeyLayer) -> bool:
    return bool(layer.keys)


@asynccontextmanager
async def followed(relays: Relays, url: str) -> AsyncIterator[list[KeyLayers]]:
    """Have each relay follow the bucket while the block runs, as ``stream-relay serve`` does."""
    async with AsyncExitStack() as stack:
        found = []
        for relay in relays:
            layers = KeyLayers(relay.keys)
            layer = layers.add("nats", stale_s=3600, revocations=relay.revocations)
            store = await stack.enter_async_context(NatsKeys(LogSettings(url=url, connect_timeout_s=0.5)))
            following = asyncio.create_task(store.follow(layer))
            stack.callback(following.cancel)
            await until(partial(is_read, layer))
            found.append(layers)
        yield found
    with suppress(asyncio.CancelledError):
        await following


@pytest.fixture
async def store(nats: NatsServer, key: Key, page_key: Key) -> NatsKeys:
    """A bucket with the keys of the tests; it is at its own server's address."""
    opened = NatsKeys(LogSettings(url=nats.url))
    for each in (key, page_key, OTHER):
        await opened.write(each, revision=0)
    return opened


async def change(store: NatsKeys, key: Key) -> float:
    """Store a changed key; return when that began."""
    found = await store.read(key.id)
    assert found is not None
    began = time.monotonic()
    await store.write(key, revision=found[1])
    return began


async def known(relays: Relays, key: Key) -> None:
    """Wait until all relays have a key as it is stored now."""
    await until(lambda: all(relay.keys.get(key.id) == key for relay in relays))


async def all_revoked(links: list[OpenLink]) -> None:
    assert [(link.protocol, await link.end()) for link in links] == [
        (link.protocol, REVOKED[link.protocol]) for link in links
    ]


@pytest.mark.heavy
async def test_key_that_is_disabled_in_the_bucket_ends_its_links_within_a_second(
    nats: NatsServer, store: NatsKeys, start_relays: StartRelays, key: Key
) -> None:
    """On both relays, over every protocol; links of another key stay."""
    async with (
        start_relays(2) as relays,
        followed(relays, nats.url),
        links_of_all_protocols(relays, SECRET) as links,
        links_of_all_protocols(relays, OTHER_SECRET) as others,
    ):
        began = await change(store, replace(key, disabled=True))
        await all_revoked(links)
        took_s = time.monotonic() - began
        for relay in relays:
            await relay.opened(len(PROTOCOLS))

        assert all(link.is_open for link in others)
        assert took_s < 1.0


async def test_key_that_is_deleted_from_the_bucket_ends_its_links(
    nats: NatsServer, store: NatsKeys, start_relays: StartRelays, key: Key
) -> None:
    """And opens no more; after it is stored again, it does."""
    async with start_relays(2) as relays, followed(relays, nats.url):
        async with links_of_all_protocols(relays, SECRET) as links:
            found = await store.read(key.id)
            assert found is not None
            await store.delete(key.id, revision=found[1])
            await all_revoked(links)
        await store.write(key, revision=0)
        await known(relays, key)
        async with links_of_all_protocols(relays, SECRET) as links:
            for relay in relays:
                await relay.opened(len(PROTOCOLS))
            assert all(link.is_open for link in links)


async def test_token_that_is_revoked_in_the_bucket(
    nats: NatsServer, store: NatsKeys, start_relays: StartRelays
) -> None:
    """Its links end on both relays; those of another token stay."""
    async with start_relays(2) as relays, followed(relays, nats.url), aiohttp.ClientSession() as http:
        first, second = relays
        token, other = [await token_of(http, first.url, SECRET) for _ in range(2)]
        async with AsyncExitStack() as stack:
            sockets = [
                await stack.enter_async_context(http.ws_connect(f"{relay.url}/ws/crash", protocols=[each]))
                for each in (token, other)
                for relay in (first, second)
            ]
            await store.revoke(Revocation.of_token(id_of(token)))
            async with asyncio.timeout(END_S):
                assert [await websocket_end(ws) for ws in sockets[:2]] == [REVOKED["websocket"]] * 2
            for relay in relays:
                await relay.opened(1)


async def test_relay_that_was_away_from_its_store_ends_what_was_revoked_meanwhile(
    nats: NatsServer, store: NatsKeys, start_relays: StartRelays, key: Key
) -> None:
    """A disabled key and a revoked token. While the store is away, open links stay."""
    async with (
        Road(nats).listening() as road,
        start_relays(2) as relays,
        followed(relays, road.url) as layers,
        links_of_all_protocols(relays, SECRET) as links,
        aiohttp.ClientSession() as http,
    ):
        first, second = relays
        token = await token_of(http, first.url, OTHER_SECRET)
        async with http.ws_connect(f"{second.url}/ws/crash", protocols=[token]) as ws:
            road.is_open = False
            road.cut()
            await until(lambda: all(layer.error is not None for each in layers for layer in each))
            await change(store, replace(key, disabled=True))
            await store.revoke(Revocation.of_token(id_of(token)))
            assert all(link.is_open for link in links)
            assert not ws.closed
            road.is_open = True

            await all_revoked(links)
            async with asyncio.timeout(END_S):
                assert await websocket_end(ws) == REVOKED["websocket"]


async def test_keys_that_change_under_load_refuse_no_client(
    nats: NatsServer, store: NatsKeys, start_relays: StartRelays, key: Key
) -> None:
    """A key is renamed, narrowed to other games, rotated and widened while clients come and go."""
    new_secret = generate("private")[0]
    overlap = StoredSecret(stored(SECRET).digest, expires_at=round(time.time()) + 600.0)
    changes = [
        replace(key, name="renamed"),
        replace(key, games=frozenset({"crash", "dice"})),
        replace(key, secrets=(stored(new_secret), overlap)),
        replace(key, secrets=(stored(new_secret), overlap), name="again", games=None),
    ]
    done = asyncio.Event()
    served = 0

    def more_than(count: int) -> bool:
        return served > count

    async def come_and_go(relay_url: str, http: aiohttp.ClientSession, secret: str) -> None:
        nonlocal served
        while not done.is_set():
            token = await token_of(http, relay_url, secret)
            async with http.ws_connect(f"{relay_url}/ws/crash", protocols=[token]) as ws:
                await ws.send_json({"action": "ping"})
                assert (await ws.receive_json(timeout=END_S))["event"] == "pong"
            async with http.get(f"{relay_url}/api/games", headers={"X-API-Key": secret}) as answer:
                assert answer.status == 200
            served += 1

    async with (
        start_relays(2) as relays,
        followed(relays, nats.url),
        aiohttp.ClientSession() as http,
        links_of_all_protocols(relays, SECRET) as links,
        asyncio.TaskGroup() as group,
    ):
        for relay in relays:
            for _ in range(4):
                group.create_task(come_and_go(relay.url, http, SECRET))
        for changed in changes:
            before = served
            await change(store, changed)
            await known(relays, changed)
            await until(partial(more_than, before + 16))
        done.set()
        assert all(link.is_open for link in links)
