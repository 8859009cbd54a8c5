"""Samples whose connections are lost resume after the last round that they printed, and miss none."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import websockets
from aiohttp import web

from tests.clients.cutting_proxy import CuttingProxy
from tests.clients.live_relay import LiveRelay
from tests.clients.recorded import brisk_relay
from tests.samples.program_samples import PROGRAMS, start

pytestmark = pytest.mark.service

UNCOMPRESSED = {"websocket/go"}
"""Samples whose rounds are several times as many bytes."""


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRelay]:
    with brisk_relay(tmp_path_factory.mktemp("brisk")) as relay:
        yield relay


@pytest.mark.parametrize("name", PROGRAMS)
async def test_sample_whose_connections_are_cut_misses_nothing(brisk: LiveRelay, name: str) -> None:
    """A sample whose connection is cut repeatedly prints every round once, in order."""
    token = websockets.Subprotocol(await asyncio.to_thread(brisk.token))
    async with (
        websockets.connect(f"{brisk.ws_url}/ws/crash", subprotocols=[token], max_queue=None) as whole,
        CuttingProxy(brisk.port, carry_bytes=4000 if name in UNCOMPRESSED else 1700).listening() as proxy,
    ):
        sample = await asyncio.to_thread(start, name, {"BASE_URL": proxy.url, "API_KEY": brisk.key})
        try:
            found = await asyncio.to_thread(sample.wait_for, r"^\[.*$", count=120, within_s=60)
        finally:
            await asyncio.to_thread(sample.stop)
        printed, truth = [match[0] for match in found], [""]
        async with asyncio.timeout(10):
            while truth[-1] != printed[-1]:
                round_ = json.loads(await whole.recv())
                truth.append(f"[{round_['game_slug']}] Round {round_['round_id']}")

    first = truth.index(printed[0])
    assert printed == truth[first : first + len(printed)]
    assert proxy.cuts >= 2


def round_json(number: int) -> str:
    return json.dumps(
        {
            "round_id": number,
            "game_slug": "crash",
            "game_type": "multiplier",
            "finished_at": "2026-01-18T10:00:30Z",
            "extras": '{"point": "2.50"}',
            "timestamp": 1737194400000,
            "cursor": f"k3f9a2-{number}",
        }
    )


class CuttingRelay:
    """Sends rounds 1 and 2 and cuts the connection; after a reconnect, sends events and round 3."""

    def __init__(self) -> None:
        self.cursors: list[str | None] = []

    async def token(self, _request: web.Request) -> web.Response:
        return web.json_response({"token": f"token{len(self.cursors)}", "expires_at": "2026-01-18T10:00:30Z"})

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        offered = request.headers["Sec-WebSocket-Protocol"]
        assert offered == f"token{len(self.cursors)}", "a token was used twice"
        self.cursors.append(request.query.get("after"))
        ws = web.WebSocketResponse(protocols=[offered])
        await ws.prepare(request)
        if len(self.cursors) == 1:
            await ws.send_str(round_json(1))
            await ws.send_str(round_json(2))
            assert request.transport is not None
            request.transport.close()
        else:
            await ws.send_str('{"event":"hello","complete":true,"first":"k3f9a2-1","head":"k3f9a2-3"}')
            await ws.send_str('{"event":"gap","from":"k3f9a2-1","to":"k3f9a2-2","reason":"expired"}')
            await ws.send_str(round_json(3))
            await ws.receive()
        return ws

    async def sse(self, request: web.Request) -> web.StreamResponse:
        self.cursors.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 100\n:\n\n")
        if len(self.cursors) == 1:
            await response.write(
                f"id: k3f9a2-1\ndata: {round_json(1)}\n\nid: k3f9a2-2\ndata: {round_json(2)}\n\n".encode()
            )
            await response.write(f"id: k3f9a2-3\ndata: {round_json(3)[:50]}".encode())  # cut within an event
            assert request.transport is not None
            request.transport.close()
        else:
            await response.write(b'event: hello\ndata: {"complete":true,"first":"k3f9a2-1","head":"k3f9a2-3"}\n\n')
            await response.write(b'event: gap\ndata: {"from":"k3f9a2-1","to":"k3f9a2-2","reason":"expired"}\n\n')
            await response.write(f"id: k3f9a2-3\ndata: {round_json(3)}\n\n".encode())
            await asyncio.Event().wait()
        return response


@asynccontextmanager
async def serving(relay: CuttingRelay) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/auth/token", relay.token),
            web.get("/ws/crash", relay.websocket),
            web.get("/sse/crash", relay.sse),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_sample_requests_the_rounds_that_it_missed(name: str) -> None:
    """After a cut a sample resumes after the last round it printed: it prints each round once, and only rounds."""
    relay = CuttingRelay()
    async with serving(relay) as url:
        sample = await asyncio.to_thread(start, name, {"BASE_URL": url})
        try:
            found = await asyncio.to_thread(sample.wait_for, r"^\[.*$", count=3, within_s=60)
        finally:
            await asyncio.to_thread(sample.stop)

    assert [match[0] for match in found] == [f"[crash] Round {number}" for number in (1, 2, 3)]
    assert relay.cursors == [None, "k3f9a2-2"]


class DrainingRelay(CuttingRelay):
    """Sends no round on the first connection, and closes it as a relay that drains; then sends round 3."""

    def __init__(self, *, reason: str) -> None:
        super().__init__()
        self._reason = reason

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        self.cursors.append(request.query.get("after"))
        ws = web.WebSocketResponse(protocols=[request.headers["Sec-WebSocket-Protocol"]])
        await ws.prepare(request)
        if len(self.cursors) == 1:
            assert request.query["hello"] == "1"
            await ws.send_str('{"event":"hello","complete":true,"first":"k3f9a2-1","head":"k3f9a2-1"}')
            if self._reason:
                await ws.close(code=1012, message=self._reason.encode())
            else:
                assert request.transport is not None
                request.transport.close()
        else:
            await ws.send_str(round_json(3))
            await ws.receive()
        return ws


@pytest.mark.parametrize(
    ("reason", "cursor"),
    [
        ('{"reason":"draining","retry_ms":1,"cursor":"k3f9a2-2"}', "k3f9a2-2"),
        ('{"reason":"capacity","retry_ms":1}', "k3f9a2-1"),
        ("gone", "k3f9a2-1"),
        ("", "k3f9a2-1"),
    ],
    ids=["with_cursor", "without_cursor", "not_json", "cut"],
)
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.startswith("websocket/")])
async def test_websocket_sample_that_saw_no_round_returns_with_its_place(name: str, reason: str, cursor: str) -> None:
    """It asks for a first event, whose head is its place, and reads the cursor and the delay of the close reason."""
    relay = DrainingRelay(reason=reason)
    async with serving(relay) as url:
        sample = await asyncio.to_thread(start, name, {"BASE_URL": url})
        try:
            await asyncio.to_thread(sample.wait_for, r"^\[crash\] Round 3$", within_s=60)
        finally:
            await asyncio.to_thread(sample.stop)

    assert relay.cursors == [None, cursor]
