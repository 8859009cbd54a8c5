"""Rounds over Server-Sent Events: the bytes on the wire, from the first to the last."""

import sys

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric, metric_becomes, token_of
from tests.relay.event_stream import stream
from tests.relay.raw_http import Connection, connection, exchange, parse, unchunked

pytestmark = pytest.mark.service

ASK = f"GET /sse/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: {DEMO_KEY}\r\n\r\n".encode()


async def test_first_bytes_come_at_once(relay: str) -> None:
    """`retry` and a comment follow the headers before any round, so that proxies pass the headers on."""
    async with connection(relay) as link:
        await link.send(ASK)
        answer = parse(await link.until(b"\r\n\r\n"))
        first, _ = unchunked(await link.until(b":\n\r\n"))

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert first == b"retry: 2000\nid: %b\n:\n" % answer.headers["head-cursor"].encode()


async def test_round_is_a_block_of_id_and_data(relay: str, client: aiohttp.ClientSession, publish: Publish) -> None:
    """No event name, so `onmessage` receives it; the id is the cursor of the round; the six given fields come first."""
    async with stream(client, f"{relay}/sse/crash") as events:
        [sequence] = await publish("crash", 67890)
        block = await events.round_block()

    assert block.names == ["id", "data"]
    assert block.id == block.round["cursor"]
    assert block.id.endswith(f"-{sequence}")
    assert list(block.round) == ["round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp", "cursor"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/sse/type/color", ["double"]),
        ("/sse?games=dice,double", ["dice", "double"]),
        ("/sse?games=dice,%20double", ["dice", "double"]),
        ("/sse", ["crash", "dice", "double"]),
    ],
)
async def test_several_games_on_one_stream(
    relay: str, client: aiohttp.ClientSession, publish: Publish, path: str, expected: list[str]
) -> None:
    """By type, by list, or all: only their rounds, in the order of the log."""
    async with stream(client, f"{relay}{path}") as events:
        for number, game in enumerate(["crash", "dice", "double"], 1):
            await publish(game, number)
        seen = [(await events.round())["game_slug"] for _ in expected]

    assert seen == expected


async def test_filtered_stream_has_only_matching_rounds(
    relay: str, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Bounds are inclusive, and a round without the field does not match."""
    async with stream(client, f"{relay}/sse/crash?min_point=2&max_point=3") as events:
        for number, point in enumerate(["1.99", "2", "3.00", "3.01"], 1):
            await publish("crash", number, extras=f'{{"point":"{point}"}}')
        await publish("crash", 5, extras="{}")
        await publish("crash", 6, extras='{"point":"2.5"}')
        seen = [(await events.round())["round_id"] for _ in range(3)]

    assert seen == [2, 3, 6]


async def test_idle_stream_has_regular_comments(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """They keep proxies from closing an idle stream."""
    async with (
        start_relay(links={"heartbeat_s": 0.1}) as url,
        stream(client, f"{url}/sse/crash") as events,
    ):
        comments = [await events.opening() for _ in range(3)]

    assert comments == [[("", "")]] * 3


@pytest.mark.parametrize("place", ["header", "bearer", "api_key", "token"])
async def test_credential_is_read_from_each_documented_place(
    relay: str, client: aiohttp.ClientSession, publish: Publish, place: str
) -> None:
    """A key in two headers or the query, a token in the query."""
    ways: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "header": (KEY_HEADER, {}),
        "bearer": ({"Authorization": f"Bearer {DEMO_KEY}"}, {}),
        "api_key": ({}, {"api_key": DEMO_KEY}),
        "token": ({}, {"token": await token_of(client, relay)}),
    }
    headers, params = ways[place]
    async with stream(client, f"{relay}/sse/crash", headers=headers, params=params) as events:
        await publish("crash", 7)
        assert (await events.round())["round_id"] == 7


async def test_client_of_http_1_0_is_sent_no_chunks(relay: str, publish: Publish) -> None:
    """HTTP/1.0 has no chunked encoding: such a client reads plain bytes to the end of the connection."""
    async with connection(relay) as link:
        await link.send(ASK.replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = parse(await link.until(b"\r\n\r\n"))
        opening = await link.until(b":\n")
        await publish("crash", 7)
        block = await link.until(b"\n\n")

    assert "transfer-encoding" not in answer.headers
    assert opening.startswith(b"retry: 2000\n")
    assert block.startswith(b"id: ")


async def test_full_relay_answers_200_with_retry(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """An EventSource does not reconnect after 503: it gets 200, a retry delay, and the end of the stream."""
    async with start_relay(links={"max_links": 1, "retry_ms": 700}) as url, stream(client, f"{url}/sse/crash"):
        async with client.get(f"{url}/sse/crash", headers=KEY_HEADER) as response:
            text = await response.text()
        async with client.get(f"{url}/readyz") as probe:
            readiness = await probe.json()

    name, _, delay = text.strip().partition(": ")
    assert (response.status, response.content_type, name) == (200, "text/event-stream", "retry")
    assert 700 <= int(delay) <= 2100
    assert (probe.status, readiness["reason"]) == (503, "capacity")


async def test_full_relay_answers_wrong_requests_with_an_error_status(
    start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """An EventSource does not reconnect after an error status: it is for requests that can never succeed."""
    async with start_relay(links={"max_links": 1}) as url, stream(client, f"{url}/sse/crash"):
        statuses = []
        for path, headers in (("/sse/crash", {}), ("/sse/no-such-game", KEY_HEADER)):
            async with client.get(f"{url}{path}", headers=headers) as response:
                statuses.append((response.status, (await response.json())["success"]))

    assert statuses == [(401, False), (404, False)]


async def test_stream_that_we_end_is_complete(start_relay: StartRelay) -> None:
    """It ends with `retry` and its last chunk: proxies and clients see no error."""
    async with start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1}) as url:
        answer = await exchange(url, "GET /sse/crash HTTP/1.1", f"X-API-Key: {DEMO_KEY}")

    content, is_whole = unchunked(answer.body)
    assert is_whole
    assert content.rstrip().rpartition(b"\n")[2].startswith(b"retry: ")


async def test_client_that_leaves_frees_its_permit(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """A broken connection is noticed without a write, and its permit is given to the next client."""
    async with start_relay(links={"max_links": 2}) as url:
        async with connection(url) as first, connection(url) as second:
            for link in (first, second):
                await opened(link)
            assert await metric(client, url, "relay_links") == 2
        await metric_becomes(client, url, "relay_links", 0)
        async with stream(client, f"{url}/sse/crash"):
            assert await metric(client, url, "relay_links") == 1


async def opened(link: Connection) -> None:
    await link.send(ASK)
    await link.until(b":\n\r\n")


async def test_stream_of_a_client_that_does_not_read_is_cut(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Unsent bytes are bounded: above the limit the stream is ended as slow, and other streams continue."""
    async with (
        start_relay(links={"unsent_bytes": 16 << 10, "linger_s": 0.1}) as url,
        stream(client, f"{url}/sse/crash") as reading,
        connection(url) as unread,
    ):
        await opened(unread)
        unread.writer.transport.pause_reading()  # type: ignore[attr-defined]
        ballast = "x" * 200_000
        sent = 0
        while await metric(client, url, "relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras=f'{{"point":"2.50","ballast":"{ballast}"}}')
            assert (await reading.round())["round_id"] == sent
        await metric_becomes(client, url, "relay_links", 1)
        await publish("crash", sent + 1)
        assert (await reading.round())["round_id"] == sent + 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere connections may not inherit what bounds the kernel")
async def test_kernel_buffer_of_a_slow_reader_is_bounded(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """The client is slow some hundred KB after the relay's own limit; by default the kernel would buffer 4 MB first."""
    async with start_relay(links={"unsent_bytes": 16 << 10, "linger_s": 0.1}) as url, connection(url) as unread:
        await opened(unread)
        unread.writer.transport.pause_reading()  # type: ignore[attr-defined]
        ballast = "x" * 20_000
        sent = 0
        while await metric(client, url, "relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras=f'{{"point":"2.50","ballast":"{ballast}"}}')
            await metric_becomes(client, url, "relay_rounds_total", sent)

    assert sent * len(ballast) < 1 << 20
