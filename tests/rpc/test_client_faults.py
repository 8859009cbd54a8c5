"""Third-party gRPC clients whose network breaks, and that do not read: no round is lost, and none comes twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from auth.key_secret import DEMO_KEY
from relay.http2.header_blocks import header_block
from relay.http2.http2_frames import PREFACE, data_frames, header_frames, settings_frame
from relay.rpc.calls.request_messages import prefixed
from rounds import Cursor
from rounds import datastream_pb2 as pb
from tests.clients.cutting_proxy import CuttingProxy
from tests.relay.raw_http import connection
from tests.rpc.caller import Caller
from tests.rpc.conftest import GrpcRelay, Publish, StartRelay
from tests.rpc.foreign import HTTP2, calling

pytestmark = pytest.mark.service

_BALLAST = '{"ballast":"' + "x" * 50_000 + '"}'


@pytest.mark.parametrize("way", HTTP2)
async def test_library_resumes_after_cuts(relay: GrpcRelay, publish: Publish, tmp_path: Path, way: str) -> None:
    """A cut within a frame ends the call with an error; a call with the last cursor gets the rest."""
    await publish("crash", *range(1, 201), extras='{"ballast":"%s"}' % ("x" * 500))
    seen: list[int] = []
    ends: list[str] = []
    start: dict[str, object] = {"last": 200}
    async with CuttingProxy(relay.grpc_port, carry_bytes=50_021).listening() as network:
        while len(seen) < 200:
            through = replace(relay, grpc_port=network.port)
            async with calling(way, through, "StreamAll", {"start": start}, folder=tmp_path) as call:
                messages, end = await call.until_end(at_most=200 - len(seen))
            ends += [end.code] if end else []
            seen += [int(message["round_id"]) for message in messages]
            start = {"after": messages[-1]["cursor"]}

    assert seen == list(range(1, 201))
    assert len(ends) >= 2
    assert "ok" not in ends


@pytest.mark.parametrize("way", HTTP2)
async def test_library_that_stops_reading(start_relay: StartRelay, publish: Publish, tmp_path: Path, way: str) -> None:
    """It is ended as slow; when it reads again it finds its rounds, and the cursor of the last one of them."""
    async with start_relay(links={"unsent_bytes": 64 << 10, "linger_s": 60}) as relay:
        await publish("crash", 1)
        async with calling(way, relay, "StreamAll", {"start": {"last": 1}}, folder=tmp_path) as call:
            messages = await call.messages(1)
            call.stop_reading()
            sent = 1
            while await relay.metric("relay_links_slow_total") == 0:
                sent += 1
                await publish("crash", sent, extras=_BALLAST)
                assert sent < 1000, "nothing bounds what waits for a client"
            call.read_again()
            rest, end = await call.until_end()
        messages += rest

    assert [int(message["round_id"]) for message in messages] == list(range(1, len(messages) + 1))
    assert end is not None
    assert end.code == "unavailable"
    assert "slow" in end.message
    assert Cursor.parse(end.trailers["resume-cursor"]) == Cursor.parse(messages[-1]["cursor"])


@pytest.mark.parametrize("method", ["StreamAll", "Replay"])
async def test_request_that_is_malformed_after_its_message(relay: GrpcRelay, caller: Caller, method: str) -> None:
    """It opens no link, also when its permit has to be waited for: the first link of a relay waits for the log."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/datastream.DataStream/" + method.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"x-api-key", DEMO_KEY.encode()),
    )
    request = header_frames(1, header_block(fields), ended=False) + data_frames(1, prefixed(b"") + b"wrong")
    for _ in range(3):
        async with connection(f"http://{relay.address}") as raw:
            await raw.send(PREFACE + settings_frame({}) + request)
            await raw.until(b"a message begins with byte")

    async with caller.stream(pb.StreamAllRequest()) as call:
        await call.initial_metadata()
        assert await relay.metric("relay_links") == 1
    await relay.metric_becomes("relay_links", 0)
