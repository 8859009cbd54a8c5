"""Third-party clients, in several languages and protocols, against a running relay."""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from auth.key_secret import DEMO_KEY
from rounds import Cursor
from rounds import datastream_pb2 as pb
from tests.clients.program import Program
from tests.rpc.caller import SERVICE
from tests.rpc.conftest import GrpcRelay, Publish, StartRelay
from tests.rpc.foreign import PROTO_FILE, STREAMING, WAYS, buf, calling, grpcurl, running

pytestmark = pytest.mark.service


# --- libraries of other languages -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", STREAMING)
async def test_library_streams_what_matches(relay: GrpcRelay, publish: Publish, tmp_path: Path, way: str) -> None:
    """Rounds that match, from history to live, as the library's own objects."""
    await publish("crash", 1, 2, 3)
    wanted = {"game_slug": "crash", "filter": {"min_point": 2}, "start": {"last": 3}}
    async with calling(way, relay, "StreamByGame", wanted, folder=tmp_path) as call:
        seen = await call.messages(3)
        await publish("crash", 4, extras='{"point":"1.99"}')
        await publish("crash", 5)
        seen += await call.messages(1)

    assert [round_["round_id"] for round_ in seen] == ["1", "2", "3", "5"]
    assert seen[0]["extras"] == '{"point":"2.50"}'
    assert seen[0]["timestamp"] == "1768730430000"


@pytest.mark.parametrize("way", WAYS)
async def test_library_calls_a_unary_method(relay: GrpcRelay, publish: Publish, tmp_path: Path, way: str) -> None:
    """The newest round."""
    await publish("crash", 67890)
    async with calling(way, relay, "GetLatest", {"game_slug": "crash"}, folder=tmp_path) as call:
        [round_] = await call.messages(1)
        end = await call.end()

    assert round_["round_id"] == "67890"
    assert end.code == "ok"


@pytest.mark.parametrize("way", WAYS)
async def test_library_is_refused(relay: GrpcRelay, tmp_path: Path, way: str) -> None:
    """It gets the code and the message, of unary calls and of streams."""
    async with calling(way, relay, "GetLatest", {"game_slug": "nope"}, folder=tmp_path) as call:
        missing = await call.end()
    async with calling(way, relay, "StreamAll", {}, key="sk_live_nobody", folder=tmp_path) as call:
        stranger = await call.end()

    assert missing.code == "notfound"
    assert "'nope'" in missing.message
    assert stranger.code == "unauthenticated"


@pytest.mark.parametrize("way", STREAMING)
async def test_library_sees_a_drain(start_relay: StartRelay, publish: Publish, tmp_path: Path, way: str) -> None:
    """The status has the retry delay and the resume cursor."""
    async with AsyncExitStack() as stack:
        async with start_relay() as relay:
            await publish("crash", 1)
            following = calling(way, relay, "StreamAll", {"start": {"last": 1}}, folder=tmp_path)
            call = await stack.enter_async_context(following)
            [round_] = await call.messages(1)
        end = await call.end()

    assert end.code == "unavailable"
    assert int(end.trailers["retry-after-ms"]) >= 0
    assert end.trailers["resume-cursor"] == round_["cursor"]


@pytest.mark.parametrize("way", ["connect node-connect-json", "connect node-grpc-web", "connect node-grpc"])
async def test_library_reads_the_cursors_of_a_lost_log(
    relay: GrpcRelay, publish: Publish, tmp_path: Path, way: str
) -> None:
    """Connect's library joins the values of initial metadata and trailers of one name: each cursor comes once."""
    await publish("crash", 1)
    async with calling(way, relay, "StreamAll", {"after": "k3f9a2-1042"}, folder=tmp_path) as call:
        end = await call.end()

    assert end.code == "outofrange"
    cursors = {name: Cursor.parse(end.trailers[name]) for name in ("oldest-cursor", "first-cursor", "resume-cursor")}
    assert {name: cursor.sequence for name, cursor in cursors.items()} == {
        "oldest-cursor": 1,
        "first-cursor": 1,
        "resume-cursor": 0,
    }


# --- grpclib -------------------------------------------------------------------------------------------------------


async def test_grpclib(relay: GrpcRelay, publish: Publish) -> None:
    """A gRPC implementation in Python, with another HTTP/2 library."""
    await publish("crash", 7)
    channel = Channel("127.0.0.1", relay.grpc_port)
    try:
        latest = UnaryUnaryMethod(channel, f"/{SERVICE}/GetLatest", pb.GetLatestRequest, pb.Round)
        round_ = await latest(pb.GetLatestRequest(game_slug="crash"), metadata={"x-api-key": DEMO_KEY})
        with pytest.raises(GRPCError) as refused:
            await latest(pb.GetLatestRequest(game_slug="nope"), metadata={"x-api-key": DEMO_KEY})
        follow = UnaryStreamMethod(channel, f"/{SERVICE}/StreamAll", pb.StreamAllRequest, pb.Round)
        async with follow.open(metadata={"x-api-key": DEMO_KEY}) as stream:
            await stream.send_message(pb.StreamAllRequest(after=round_.cursor), end=True)
            await stream.recv_initial_metadata()
            await publish("dice", 8)
            live = await stream.recv_message()
            await stream.cancel()
    finally:
        channel.close()

    assert round_.round_id == 7
    assert refused.value.status is Status.NOT_FOUND
    assert live is not None
    assert live.round_id == 8


# --- command lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["connect", "grpcweb", "grpc"])
async def test_buf_curl(relay: GrpcRelay, publish: Publish, protocol: str) -> None:
    """`buf curl` uses all three protocols, and reflection."""
    await publish("crash", 1, 2)
    command = [buf(), "curl", "--protocol", protocol, "--header", f"X-API-Key: {DEMO_KEY}"]
    if protocol == "grpc":
        command += ["--http2-prior-knowledge"]
        where = f"http://{relay.address}/{SERVICE}"
    else:
        command += ["--schema", str(PROTO_FILE.parent)]
        where = f"{relay.url}/api/grpc/{SERVICE}"
    async with running([*command, "--data", '{"game_slug":"crash"}', f"{where}/GetLatest"]) as asked:
        answer = json.loads(await _exits(asked, well=True))
    async with running([*command, "--data", '{"start":{"last":2}}', f"{where}/StreamAll"]) as following:
        rounds = await _printed(following, r'"roundId": ?"(\d+)"', 2)
    async with running([*command, "--data", '{"game_slug":"nope"}', f"{where}/GetLatest"]) as refused:
        refusal = await _exits(refused, well=False)

    assert answer.get("roundId") == "2"
    assert [match[1] for match in rounds] == ["1", "2"]
    assert "not_found" in refusal


async def test_grpcurl_by_reflection(relay: GrpcRelay, publish: Publish) -> None:
    """It needs no file of the schema."""
    await publish("crash", 1, 2)
    command = [grpcurl(), "-plaintext", "-H", f"x-api-key: {DEMO_KEY}"]
    async with running([*command, relay.address, "list", SERVICE]) as listed:
        listing = await _exits(listed, well=True)
    follow = [*command, "-d", '{"game_slug":"crash","start":{"last":2}}', relay.address, f"{SERVICE}/StreamByGame"]
    async with running(follow) as following:
        rounds = await _printed(following, r'"round_?[iI]d": "(\d+)"', 2)

    assert f"{SERVICE}.StreamByGame" in listing
    assert [match[1] for match in rounds] == ["1", "2"]


async def _printed(program: Program, pattern: str, count: int) -> list[re.Match[str]]:
    return await asyncio.to_thread(program.wait_for, pattern, count=count)


async def _exits(program: Program, *, well: bool) -> str:
    """Wait until a program ends; return what it printed."""
    code = await asyncio.to_thread(program.wait)
    printed = "\n".join(program.printed)
    assert (code == 0) is well, printed
    return printed
