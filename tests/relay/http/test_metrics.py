"""Metrics are true also when nothing happens: fresh, idle, without NATS; and refused clients are seen."""

import asyncio
import json
import math
from typing import Any

import aiohttp
import grpc
import pytest

from auth.key_secret import generate
from relay.config.sections import LinkSettings
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric, metric_becomes, token_of
from tests.relay.event_stream import stream
from tests.relay.serving import serving
from tests.waiting import until

pytestmark = pytest.mark.service

HEAD = "relay_head_sequence"


async def samples(client: aiohttp.ClientSession, url: str, name: str) -> dict[str, float]:
    """Read all samples of a metric, by their labels."""
    async with client.get(f"{url}/metrics") as response:
        lines = [line.rpartition(" ") for line in (await response.text()).splitlines()]
    return {key.removeprefix(name): float(value) for key, _, value in lines if key.startswith((f"{name}{{", name))}


async def test_head_of_a_relay_without_clients_is_that_of_the_log(
    relay: str, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Of an empty log it is 0; it follows what is stored, though nothing is subscribed to."""
    assert await metric(client, relay, HEAD) == 0
    [*_, newest] = await publish("crash", 1, 2, 3)
    await metric_becomes(client, relay, HEAD, newest)
    [newer] = await publish("dice", 4)
    await metric_becomes(client, relay, HEAD, newer)


async def test_head_is_the_same_with_and_without_clients(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Two relays, one of which has no client, do not differ."""
    async with start_relay() as idle, start_relay() as busy, stream(client, f"{busy}/sse/crash", headers=KEY_HEADER):
        [newest] = await publish("dice", 1)
        for url in (idle, busy):
            await metric_becomes(client, url, HEAD, newest)


async def test_head_is_no_number_while_the_log_is_away(
    nats: NatsServer, relay: str, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """An old number would look as if no round was stored."""
    [newest] = await publish("crash", 1)
    await metric_becomes(client, relay, HEAD, newest)
    await nats.kill()

    async def is_unknown() -> bool:
        return math.isnan(await metric(client, relay, HEAD))

    await until(is_unknown)
    await nats.start()
    await metric_becomes(client, relay, HEAD, newest)


async def test_counters_exist_before_they_count(relay: str, client: aiohttp.ClientSession) -> None:
    """A counter that appears with its first increment has no increase for an alert to see."""
    closed = await samples(client, relay, "relay_links_closed_total")
    refused = await samples(client, relay, "relay_refused_total")

    assert closed['{reason="failed"}'] == closed['{reason="slow"}'] == 0
    assert refused['{protocol="sse",reason="capacity"}'] == 0


async def test_refused_clients_are_counted_by_reason(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """Of every protocol, by credential and for lack of room."""
    async with start_relay(links=LinkSettings(max_links=1)) as url:
        token = await token_of(client, url)
        wrong = {"X-API-Key": f"sk_live_{'4' * 64}"}
        before = await samples(client, url, "relay_refused_total")
        for path in ("/api/games", "/sse/crash", "/ws/crash", "/api/grpc/datastream.DataStream/ListGames"):
            method = "POST" if "grpc" in path else "GET"
            upgrade = {"Upgrade": "websocket"} if path.startswith("/ws") else {}
            async with client.request(method, url + path, headers=wrong | upgrade, json={}) as response:
                assert response.status == 401
        async with stream(client, f"{url}/sse/crash", headers=KEY_HEADER):
            async with client.get(f"{url}/sse/crash", headers=KEY_HEADER) as response:
                assert (await response.text()).startswith("retry: ")
            async with client.ws_connect(f"{url}/ws/crash", protocols=[token]) as ws:
                assert (await ws.receive()).data == 1013
        after = await samples(client, url, "relay_refused_total")

    grown = {labels: after[labels] - before[labels] for labels in after if after[labels] != before[labels]}
    assert grown == {
        '{protocol="rest",reason="invalid_credential"}': 1,
        '{protocol="sse",reason="invalid_credential"}': 1,
        '{protocol="websocket",reason="invalid_credential"}': 1,
        '{protocol="proxy",reason="invalid_credential"}': 1,
        '{protocol="sse",reason="capacity"}': 1,
        '{protocol="websocket",reason="capacity"}': 1,
    }


def events(printed: list[str], name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in printed if f'"{name}"' in line]
    return [event for event in found if event["event"] == name]


async def test_log_lines_of_clients(nats: NatsServer, client: aiohttp.ClientSession) -> None:
    """Who came, and who was refused, few lines of a kind; no key and no query is in any line."""
    wrong, _ = generate("private")
    async with serving(nats.url, RELAY_GRPC_HOST="127.0.0.1") as relay:
        [listening] = events(relay.printed, "relay_listening")
        agent = {"User-Agent": f"Chart/1.0 {relay.key}"}
        url = f"{relay.url}/sse?games=crash,dice&api_key={relay.key}"
        async with stream(client, url, headers=agent):
            pass
        for _ in range(50):
            async with client.get(f"{relay.url}/sse/crash?api_key={wrong}", headers=agent) as response:
                assert response.status == 401
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listening['grpc_port']}") as channel:
            call: Any = channel.unary_stream("/datastream.DataStream/StreamByGame")
            request = pb.StreamByGameRequest(game_slug="crash").SerializeToString()
            opened = call(request, metadata=(("x-api-key", relay.key),))
            await opened.initial_metadata()
            opened.cancel()
            with pytest.raises(grpc.aio.AioRpcError):
                await call(request, metadata=(("x-api-key", wrong),)).read()
        await asyncio.to_thread(relay.stop)

    over_http, over_grpc = events(relay.printed, "link_opened")
    expected = {"protocol": "sse", "key": "k", "games": "crash,dice", "address": "127.0.0.1"}
    assert over_http.items() >= (expected | {"user_agent": "Chart/1.0 sk_live_***"}).items()
    assert over_grpc.items() >= {"protocol": "grpc", "games": "crash", "address": "127.0.0.1"}.items()
    assert over_grpc["user_agent"].startswith("grpc-python")
    refused = events(relay.printed, "client_refused")
    assert [line["protocol"] for line in refused] == ["sse"] * 5 + ["grpc"]
    assert all(line["reason"] == "invalid_credential" and line["address"] == "127.0.0.1" for line in refused)
    text = "\n".join(relay.printed)
    assert wrong[8:] not in text
    assert relay.key[8:] not in text
