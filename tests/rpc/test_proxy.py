"""The service over plain HTTP, as bytes on the wire: Connect and gRPC-Web."""

import asyncio
import base64
import gzip
import io
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest
from yarl import URL

from auth.key_secret import DEMO_KEY
from relay.history.writer import ReplayWriter
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.network.streams import connected
from tests.rpc.conftest import PUBLIC_KEY, GrpcRelay, Outliving, Publish, StartRelay, keys
from tests.rpc.envelopes import element, elements, envelope
from tests.waiting import until

pytestmark = pytest.mark.service

JSON: Final = {"Content-Type": "application/json"}
PROTO: Final = {"Content-Type": "application/proto"}
CONNECT_JSON: Final = {"Content-Type": "application/connect+json"}
CONNECT_PROTO: Final = {"Content-Type": "application/connect+proto"}
WEB: Final = {"Content-Type": "application/grpc-web+proto"}
WEB_TEXT: Final = {"Content-Type": "application/grpc-web-text"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as session:
        yield session


def trailers(data: bytes) -> dict[str, str]:
    """Read the status frame of gRPC-Web."""
    return dict(line.split(": ", 1) for line in data.decode().splitlines())


# --- Connect, unary calls ------------------------------------------------------------------------------------------


async def test_json_by_post(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """A line of curl is enough. Names are those of the contract; 64-bit numbers are strings, as in protobuf JSON."""
    await publish("crash", 67890)
    async with http.post(relay.proxy("GetLatest"), headers=JSON, data='{"game_slug":"crash"}') as response:
        answer = await response.json()

    assert response.status == 200
    assert answer.pop("cursor")
    assert answer == {
        "round_id": "67890",
        "game_slug": "crash",
        "game_type": "multiplier",
        "finished_at": "2026-01-18T10:00:30.123456789Z",
        "extras": '{"point":"2.50"}',
        "timestamp": "1768730430000",
        "finished_time": "2026-01-18T10:00:30.123456789Z",
    }


async def test_protobuf_by_post(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """The same as protobuf, compressed by the client or not."""
    await publish("crash", 7)
    data = pb.GetLatestRequest(game_slug="crash").SerializeToString()
    async with http.post(relay.proxy("GetLatest"), headers=PROTO, data=data) as response:
        plain = pb.Round.FromString(await response.read())
    packed = {**PROTO, "Content-Encoding": "gzip"}
    async with http.post(relay.proxy("GetLatest"), headers=packed, data=gzip.compress(data)) as response:
        assert response.content_type == "application/proto", await response.text()
        assert pb.Round.FromString(await response.read()) == plain

    assert plain.round_id == 7


@pytest.mark.parametrize("encoding", ["json", "proto"])
async def test_get(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish, encoding: str) -> None:
    """A call without side effects by GET: its message is in the query, in base64 when `base64=1`."""
    await publish("crash", 7)
    request = pb.GetLatestRequest(game_slug="crash").SerializeToString()
    query = {"connect": "v1", "encoding": encoding, "message": '{"game_slug":"crash"}'}
    if encoding == "proto":
        query |= {"base64": "1", "message": base64.urlsafe_b64encode(request).decode().rstrip("=")}
    async with http.get(relay.proxy("GetLatest"), params=query) as response:
        body = await response.read()

    assert response.status == 200
    assert (json.loads(body)["round_id"] == "7") if encoding == "json" else (pb.Round.FromString(body).round_id == 7)


async def test_long_answer_is_compressed(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """When the client accepts it and the answer is large enough."""
    await publish("crash", *range(1, 101))
    async with http.post(relay.proxy("GetHistory"), headers=JSON | {"Accept-Encoding": "gzip"}, data="{}") as response:
        answer = await response.json()

    assert response.headers["Content-Encoding"] == "gzip"
    assert len(answer["rounds"]) == 100


@pytest.mark.parametrize(
    ("method", "body", "status", "code", "word"),
    [
        ("GetLatest", '{"game_slug":"nope"}', 404, "not_found", "unknown_game"),
        ("GetLatest", '{"game_slug":"dice"}', 404, "not_found", "no_round_yet"),
        ("GetLatest", '{"game_slug":7}', 400, "invalid_argument", "bad_request"),
        ("GetLatest", '{"slug":"dice"}', 400, "invalid_argument", "bad_request"),
        ("GetLatest", "{", 400, "invalid_argument", "bad_request"),
        ("GetLatest", "\udcff", 400, "invalid_argument", "bad_request"),
        ("GetHistory", '{"before":"k3f9a2-1"}', 400, "out_of_range", "cursor_lost"),
        ("GetHistory", '{"filter":{"min_point":3,"max_point":2}}', 400, "invalid_argument", "invalid_filter"),
        ("GetLatest", "[]", 400, "invalid_argument", "bad_request"),
        ("GetLatest", "7", 400, "invalid_argument", "bad_request"),
        ("GetLatest", "null", 400, "invalid_argument", "bad_request"),
        ("GetHistory", '{"filter":[]}', 400, "invalid_argument", "bad_request"),
        ("GetHistory", '{"filter":7}', 400, "invalid_argument", "bad_request"),
        ("GetHistory", f'{{"filter":{{"min_point":{"9" * 400}}}}}', 400, "invalid_argument", "bad_request"),
        ("GetLatest", '{"game_slug":"\\ud800"}', 400, "invalid_argument", "bad_request"),
        ("GetHistory", '{"filter":' * 3000, 400, "invalid_argument", "bad_request"),
        ("GetLatest", " " * (10 << 20), 429, "resource_exhausted", "too_large"),
        ("Nope", "{}", 501, "unimplemented", "unsupported"),
    ],
)
async def test_error_of_a_call(
    relay: GrpcRelay, http: aiohttp.ClientSession, method: str, body: str, status: int, code: str, word: str
) -> None:
    """Connect's own codes, a message, and the stable code of the HTTP API as a detail."""
    async with http.post(
        relay.proxy(method), headers=JSON, data=io.BytesIO(body.encode(errors="surrogateescape"))
    ) as response:
        error = await response.json()

    assert response.status == status
    assert error["code"] == code
    assert error["message"]
    assert "object is not" not in error["message"], "what Python thinks of it"
    assert "Error:" not in error["message"], "what Python calls it"
    assert "Failed to parse" not in error["message"], "what protobuf calls it"
    [detail] = error["details"]
    assert detail["type"] == "google.rpc.ErrorInfo"
    assert detail["debug"]["reason"] == word
    assert base64.b64decode(detail["value"] + "==")


async def test_malformed_protobuf(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """The error is JSON in any dialect."""
    async with http.post(relay.proxy("GetLatest"), headers=PROTO, data=b"\xff\xff") as response:
        error = await response.json()

    assert (response.status, error["code"]) == (400, "invalid_argument")


async def test_request_that_decompresses_to_gigabytes(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """It is refused at the limit, not after decompression."""
    bomb = gzip.compress(b"\0" * (50 << 20))
    headers = PROTO | {"Content-Encoding": "gzip"}
    async with http.post(relay.proxy("GetLatest"), headers=headers, data=bomb) as response:
        error = await response.json()
    headers = CONNECT_PROTO | {"Connect-Content-Encoding": "gzip"}
    async with http.post(relay.proxy("StreamAll"), headers=headers, data=envelope(bomb, 1)) as response:
        [(_, data)] = elements(await response.read())

    assert error["code"] == json.loads(data)["error"]["code"] == "resource_exhausted"
    assert "more than" in error["message"]


async def test_largest_request_is_a_setting(start_relay: StartRelay) -> None:
    """One setting bounds messages over gRPC and through the proxy; both refuse with the same status."""
    fits, long = "x" * 90_000, "x" * 110_000
    sections: dict[str, Any] = {"grpc": {"request_bytes": 100_000}}
    codes = {}
    async with (
        start_relay(**sections) as relay,
        relay.caller() as calling,
        aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as http,
    ):
        for name in (fits, long):
            request = pb.GetLatestRequest(game_slug=name)
            over_grpc = (await calling.failure(request)).code.name.lower()
            async with http.post(relay.proxy("GetLatest"), headers=PROTO, data=request.SerializeToString()) as answer:
                by_connect = (await answer.json())["code"]
            text = base64.b64encode(envelope(request))
            async with http.post(relay.proxy("GetLatest"), headers=WEB_TEXT, data=text) as answer:
                [(_, end)] = elements(_plain(await answer.read()))
            codes[name] = (over_grpc, by_connect, trailers(end)["grpc-status"])

    assert codes == {fits: ("not_found", "not_found", "5"), long: ("resource_exhausted", "resource_exhausted", "8")}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X-API-Key": ""}, "unauthenticated"),
        ({"X-API-Key": "sk_live_" + "1" * 64}, "unauthenticated"),
        ({"Authorization": "Bearer sk_live_" + "1" * 64}, "invalid_argument"),
        ({"Content-Encoding": "gzip"}, "invalid_argument"),
        ({"Content-Encoding": "deflate"}, "unimplemented"),
        ({"Content-Encoding": "snappy"}, "unimplemented"),
        ({"Connect-Timeout-Ms": "soon"}, "invalid_argument"),
        ({"Connect-Timeout-Ms": "0"}, "deadline_exceeded"),
    ],
)
async def test_invalid_header(
    relay: GrpcRelay, http: aiohttp.ClientSession, headers: dict[str, str], code: str
) -> None:
    """The error names it."""
    async with http.post(relay.proxy("ListGames"), headers=JSON | headers, data="{}") as response:
        error = await response.json()

    assert error["code"] == code
    assert error["message"]


@pytest.mark.parametrize(
    ("method", "content_type", "understood"),
    [
        ("ListGames", "text/plain", "application/json"),
        ("ListGames", "application/x-www-form-urlencoded", "application/json"),
        ("ListGames", "application/grpc", "application/grpc-web"),
        ("ListGames", "application/connect+json", "application/json"),
        ("StreamAll", "application/json", "application/connect+json"),
        ("StreamAll", "application/connect+xml", "application/connect+json"),
    ],
)
async def test_body_of_another_type(
    relay: GrpcRelay, http: aiohttp.ClientSession, method: str, content_type: str, understood: str
) -> None:
    """415, as Connect requires, with its error body; the message and a header name the supported types."""
    async with http.post(relay.proxy(method), headers={"Content-Type": content_type}, data="{}") as response:
        error = await response.json()

    assert (response.status, response.content_type) == (415, "application/json")
    assert error["code"] == "unimplemented"
    assert error["details"][0]["debug"]["reason"] == "unsupported_media_type"
    assert error["message"].startswith(f"{content_type} is not supported here; send ")
    assert understood in error["message"]
    assert understood in response.headers["Accept-Post"].split(", ")
    assert content_type not in response.headers["Accept-Post"].split(", ")


async def test_get_in_another_encoding(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """415 again: the encoding of a GET is its content type."""
    async with http.get(relay.proxy("ListGames"), params={"encoding": "xml", "message": "{}"}) as response:
        error = await response.json()

    assert (response.status, error["code"]) == (415, "unimplemented")
    assert error["message"] == "encoding=xml is not supported here; send encoding=json, encoding=proto"


async def test_get_with_a_parameter_twice(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """The request is ambiguous. Parameters that are not of Connect are ignored, as it requires."""
    twice = [("encoding", "json"), ("message", "{}"), ("message", '{"game_slug":"crash"}')]
    async with http.get(relay.proxy("ListGames"), params=twice) as response:
        error = await response.json()
    async with http.get(relay.proxy("ListGames"), params=[*twice[:2], ("x", "1"), ("x", "2")]) as answer:
        assert answer.status == 200

    assert (response.status, error["code"]) == (400, "invalid_argument")
    assert error["message"] == "message is given more than once; it takes one value"


async def test_preflight_of_a_browser(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """A page of any origin may send requests; key and origin decide. It may read the headers that it acts on."""
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    async with http.options(relay.proxy("StreamAll"), headers=asked) as response:
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
    async with http.post(
        relay.proxy("ListGames"), headers=JSON | {"Origin": "https://example.com"}, data="{}"
    ) as answer:
        exposed = answer.headers["Access-Control-Expose-Headers"].lower()

    assert response.status == 204
    for name in ("content-type", "connect-protocol-version", "connect-timeout-ms", "x-api-key", "x-grpc-web"):
        assert name in allowed
    for name in ("grpc-status", "grpc-message", "retry-after-ms", "first-cursor"):
        assert name in exposed


@pytest.mark.parametrize("method", ["ListGames", "StreamAll"])
async def test_page_of_an_allowed_origin(start_relay: StartRelay, method: str) -> None:
    """Its answer is readable by its own origin only; a page of another origin can read its refusal."""
    found = {}
    async with start_relay(keys=keys()) as relay, aiohttp.ClientSession(headers={"X-API-Key": PUBLIC_KEY}) as http:
        for origin in ("https://example.com", "https://other.example"):
            headers = (JSON if method == "ListGames" else CONNECT_JSON) | {"Origin": origin}
            body = b"{}" if method == "ListGames" else envelope(b"{}")
            async with http.post(relay.proxy(method), headers=headers, data=body) as response:
                found[origin] = response.headers.get("Access-Control-Allow-Origin")
                assert "Origin" in response.headers["Vary"]
                if origin != "https://example.com":
                    refusal = await response.read()

    assert found == {"https://example.com": "https://example.com", "https://other.example": "*"}
    assert b"permission_denied" in refusal
    assert b"https://other.example" in refusal


# --- Connect, streams ----------------------------------------------------------------------------------------------


async def test_json_stream(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """Headers are sent at once, and each round in its own envelope when it is published."""
    request = envelope(b'{"game_slug":"crash","filter":{"min_point":2}}')
    async with http.post(relay.proxy("StreamByGame"), headers=CONNECT_JSON, data=request) as response:
        await publish("crash", 1, extras='{"point":"1.5"}')
        await publish("crash", 2)
        flags, data = await element(response)

    assert response.content_type == "application/connect+json"
    assert flags == 0
    assert json.loads(data)["round_id"] == "2"


async def test_protobuf_stream_after_a_cursor(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """The hello is in the response's headers: initial metadata."""
    await publish("crash", 1, 2, 3)
    begin = pb.StreamAllRequest(start=pb.Start(last=3))
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_PROTO, data=envelope(begin)) as response:
        first = pb.Round.FromString((await element(response))[1])
    after = pb.StreamAllRequest(after=first.cursor)
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_PROTO, data=envelope(after)) as response:
        seen = [pb.Round.FromString((await element(response))[1]).round_id for _ in range(2)]

    assert first.round_id == 1
    assert seen == [2, 3]
    assert response.headers["complete"] == "true"
    assert response.headers["oldest-cursor"] == first.cursor


async def test_stream_after_a_cursor_of_another_log(
    relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish
) -> None:
    """The end says that rounds are gone and where to resume; the stream has no other element."""
    await publish("crash", 1)
    request = envelope(b'{"after":"k3f9a2-7"}')
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=request) as response:
        [(flags, data)] = elements(await response.read())

    end = json.loads(data)
    assert flags == 2
    assert end["error"]["code"] == "out_of_range"
    assert end["metadata"]["first-cursor"][0].endswith("-1")
    assert end["metadata"]["resume-cursor"][0].endswith("-0")
    headers = {name.lower() for name in response.headers}
    assert not headers & end["metadata"].keys(), "Connect clients join the values of both"


@pytest.mark.parametrize("content_type", ["application/connect+json", "application/grpc-web+proto"])
async def test_quiet_stream_with_heartbeats(
    start_relay: StartRelay, http: aiohttp.ClientSession, publish: Publish, content_type: str
) -> None:
    """A message with only a cursor keeps proxies from closing a quiet stream."""
    await publish("dice", 1)
    begin = pb.StreamByGameRequest(game_slug="crash", start=pb.Start(heartbeat_s=1))
    is_json = content_type.endswith("json")
    data = envelope(json.dumps({"game_slug": "crash", "start": {"heartbeat_s": 1}}).encode() if is_json else begin)
    async with (
        start_relay(links={"heartbeat_s": 0.1}) as relay,
        http.post(relay.proxy("StreamByGame"), headers={"Content-Type": content_type}, data=data) as response,
    ):
        beats = [(await element(response))[1] for _ in range(2)]
        head = response.headers["head-cursor"]

    expected = json.dumps({"cursor": head}).encode() if is_json else pb.Round(cursor=head).SerializeToString()
    assert beats == [expected] * 2


@pytest.mark.parametrize(
    ("start", "value"), [(b"-1", "-1"), (b"1.5", "1.5"), (b'"x"', '"x"'), (b"true", "true"), (b"61", "61")]
)
async def test_wrong_heartbeats_get_one_sentence(
    relay: GrpcRelay, http: aiohttp.ClientSession, start: bytes, value: str
) -> None:
    """The same for a value of a wrong type and for one that is out of bounds."""
    request = envelope(b'{"start":{"heartbeat_s":' + start + b"}}")
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=request) as response:
        _, data = await element(response)

    error = json.loads(data)["error"]
    assert error["code"] == "invalid_argument"
    assert error["message"] == f"heartbeat_s {value} is not a whole number from 1 to 60"


async def test_gap_that_a_client_allows(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """It is a message in the stream, as over gRPC."""
    await publish("crash", 1)
    request = envelope(b'{"start":{"after":"k3f9a2-7","allow_gap":true}}')
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=request) as response:
        gap, round_ = [json.loads((await element(response))[1]) for _ in range(2)]

    assert gap["gap"]["reason"] == "rebuilt"
    assert round_["round_id"] == "1"


async def test_stream_with_a_deadline(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """It ends at its deadline, with the reason."""
    headers = CONNECT_JSON | {"Connect-Timeout-Ms": "200"}
    async with http.post(relay.proxy("StreamAll"), headers=headers, data=envelope(b"{}")) as response:
        [(flags, data)] = elements(await response.read())

    assert flags == 2
    assert json.loads(data)["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_argument"),
        (b"{}", "invalid_argument"),
        (envelope(b"{"), "invalid_argument"),
        (envelope(b"{}") * 2, "invalid_argument"),
        (envelope(b"not gzip", 1), "invalid_argument"),
        (envelope(b"packed with br", 1), "unimplemented"),
        (envelope(b'{"after":"where I was"}'), "invalid_argument"),
    ],
)
async def test_stream_that_is_refused(relay: GrpcRelay, http: aiohttp.ClientSession, body: bytes, code: str) -> None:
    """Connect puts the error of a stream into its end, with 200."""
    packed = {"Connect-Content-Encoding": "br"} if code == "unimplemented" else {"Connect-Content-Encoding": "gzip"}
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON | packed, data=body) as response:
        [(flags, data)] = elements(await response.read())

    assert (response.status, flags) == (200, 2)
    assert json.loads(data)["error"]["code"] == code


async def test_replay_over_connect(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """Batches, then an end without an error."""
    await publish("crash", *range(1, 301))
    async with http.post(relay.proxy("Replay"), headers=CONNECT_PROTO, data=envelope(b"")) as response:
        *batches, (flags, end) = elements(await response.read())

    assert [round_.round_id for _, data in batches for round_ in pb.RoundBatch.FromString(data).rounds] == list(
        range(1, 301)
    )
    assert (flags, json.loads(end)) == (2, {"metadata": {}})


async def test_drain_ends_proxied_streams(start_relay: StartRelay, publish: Publish) -> None:
    """The end is the same as over gRPC: unavailable, a delay, the cursor."""
    async with aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as http:
        async with start_relay() as relay:
            response = await http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=envelope(b"{}"))
            await publish("crash", 1)
            round_ = json.loads((await element(response))[1])
        flags, data = await element(response)
        response.close()

    end = json.loads(data)
    assert flags == 2
    assert end["error"]["code"] == "unavailable"
    assert end["metadata"]["resume-cursor"] == [round_["cursor"]]
    assert int(end["metadata"]["retry-after-ms"][0]) >= 0


async def test_full_relay_over_the_proxy(start_relay: StartRelay) -> None:
    """resource_exhausted, with a delay for this client."""
    async with (
        start_relay(links={"max_links": 1}) as relay,
        aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as http,
        http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=envelope(b"{}")),
        http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=envelope(b"{}")) as second,
    ):
        [(_, data)] = elements(await second.read())

    end = json.loads(data)
    assert end["error"]["code"] == "resource_exhausted"
    assert int(end["metadata"]["retry-after-ms"][0]) >= 2000


async def test_proxy_without_the_log(start_relay: StartRelay, nats: NatsServer) -> None:
    """503 with a delay for a unary call, unavailable at the end of a stream."""
    async with start_relay() as relay, aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as http:
        await nats.kill()
        await relay.metric_becomes("relay_ready", 0)
        async with http.post(relay.proxy("ListGames"), headers=JSON, data="{}") as answer:
            assert answer.status == 503
            assert int(answer.headers["retry-after-ms"]) >= 1000
        async with http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=envelope(b"{}")) as response:
            [(_, data)] = elements(await response.read())

    assert json.loads(data)["error"]["code"] == "unavailable"


async def test_proxied_client_that_leaves(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """Its permit is free at once."""
    async with http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=envelope(b"{}")):
        await relay.metric_becomes("relay_links", 1)
    await relay.metric_becomes("relay_links", 0)


async def test_many_proxied_clients_that_leave(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """Nothing of them remains: no permit, no subscription, no task."""
    async with http.post(relay.proxy("ListGames"), headers=JSON, data="{}") as answer:
        await answer.read()
    before = len(asyncio.all_tasks())
    for _ in range(3):
        streams = [
            await http.post(relay.proxy("StreamAll"), headers=CONNECT_JSON, data=envelope(b"{}")) for _ in range(100)
        ]
        assert await relay.metric("relay_links") == 100
        for stream in streams:
            stream.close()
        await relay.metric_becomes("relay_links", 0)
    await until(lambda: len(asyncio.all_tasks()) <= before + 1)


async def test_proxied_client_that_stops_reading(start_relay: StartRelay, publish: Publish) -> None:
    """Unsent bytes are bounded; it is ended as slow with its cursor, and no round before that cursor is missing."""
    async with (
        start_relay(links={"unsent_bytes": 64 << 10, "linger_s": 60}) as relay,
        raw_stream(relay, "1.1") as reader,
    ):
        sent = 0
        while await relay.metric("relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras='{"ballast":"' + "x" * 50_000 + '"}')
            assert sent < 400, "nothing bounds what waits for a client"
        await relay.metric_becomes("relay_links", 0)
        *rounds, (flags, end) = elements(await unchunked(reader))

    assert flags == 2
    assert json.loads(end)["error"]["code"] == "unavailable"
    assert [int(json.loads(data)["round_id"]) for _, data in rounds] == list(range(1, len(rounds) + 1))
    assert json.loads(end)["metadata"]["resume-cursor"] == [json.loads(rounds[-1][1])["cursor"]]


async def test_stream_over_http_1_0(relay: GrpcRelay, publish: Publish) -> None:
    """It is not chunked, as HTTP/1.0 has no chunks, and ends with the connection."""
    async with raw_stream(relay, "1.0") as reader:
        await publish("crash", 1)
        flags, size = struct.unpack("!BI", await reader.readexactly(5))
        round_ = json.loads(await reader.readexactly(size))
    await relay.metric_becomes("relay_links", 0)

    assert (flags, round_["round_id"]) == (0, "1")


async def unchunked(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body to its end, and then the connection."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    assert await reader.read() == b"\r\n"
    return body


@asynccontextmanager
async def raw_stream(relay: GrpcRelay, version: str) -> AsyncIterator[asyncio.StreamReader]:
    """Begin a stream of all games with a small receive buffer; yield it after the answer's head."""
    body = envelope(b"{}")
    head = (
        f"POST /api/grpc/datastream.DataStream/StreamAll HTTP/{version}\r\nHost: relay\r\nX-API-Key: {DEMO_KEY}\r\n"
        f"Content-Type: application/connect+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with connected("127.0.0.1", URL(relay.url).port, limit=1024) as (reader, writer):
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer
        assert (b"chunked" in answer) is (version == "1.1")
        yield reader


# --- gRPC-Web ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [WEB, WEB_TEXT], ids=["binary", "text"])
async def test_grpc_web_answer(
    relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish, headers: dict[str, str]
) -> None:
    """One message, then the status in its own frame; as text, all of it in base64."""
    await publish("crash", 7)
    body = envelope(pb.GetLatestRequest(game_slug="crash"))
    body = base64.b64encode(body) if headers is WEB_TEXT else body
    async with http.post(relay.proxy("GetLatest"), headers=headers, data=body) as response:
        data = await response.read()
    (flags, message), (end_flags, end) = elements(_plain(data) if headers is WEB_TEXT else data)

    assert response.content_type == headers["Content-Type"]
    assert (flags, pb.Round.FromString(message).round_id) == (0, 7)
    assert (end_flags, trailers(end)["grpc-status"]) == (0x80, "0")


async def test_grpc_web_stream(relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish) -> None:
    """Rounds as they are published."""
    request = envelope(pb.StreamByGameRequest(game_slug="crash"))
    async with http.post(relay.proxy("StreamByGame"), headers=WEB, data=request) as response:
        await publish("crash", 1)
        flags, data = await element(response)

    assert (flags, pb.Round.FromString(data).round_id) == (0, 1)


async def test_grpc_web_refusal(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """HTTP 200, a numeric gRPC status, and a percent-encoded message."""
    request = envelope(pb.GetLatestRequest(game_slug="nöpe"))
    async with http.post(relay.proxy("GetLatest"), headers=WEB, data=request) as response:
        [(flags, data)] = elements(await response.read())

    end = trailers(data)
    assert (response.status, flags, end["grpc-status"]) == (200, 0x80, "5")
    assert "n%C3%B6pe" in end["grpc-message"]


async def test_grpc_web_timeout(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """gRPC's own format of a timeout."""
    request = envelope(pb.StreamAllRequest())
    headers = WEB | {"Grpc-Timeout": "200m"}
    async with http.post(relay.proxy("StreamAll"), headers=headers, data=request) as response:
        [(_, data)] = elements(await response.read())

    assert trailers(data)["grpc-status"] == "4"


def _plain(text: bytes) -> bytes:
    """Decode base64 that was encoded in pieces, each with its padding."""
    pieces, plain = text.replace(b"=", b"=\n").replace(b"=\n=\n", b"==\n").split(b"\n"), b""
    for piece in pieces:
        plain += base64.b64decode(piece)
    return plain


async def test_cursor_is_valid_over_proxy_and_grpc(
    relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish, outliving: Outliving
) -> None:
    """A cursor from the proxy resumes over gRPC."""
    await publish("crash", 1, 2)
    async with http.post(relay.proxy("GetHistory"), headers=JSON, data='{"game_slug":"crash"}') as response:
        oldest = (await response.json())["rounds"][-1]
    call = outliving(relay).call(pb.StreamAllRequest(after=oldest["cursor"]))
    round_ = await call.read()
    call.cancel()

    assert round_.round_id == 2


async def test_client_that_reads_late_gets_the_rest_of_a_replay(
    relay: GrpcRelay, http: aiohttp.ClientSession, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay gives up a short wait for its client, and waits again as long as it takes."""
    numbers = range(1, 201)
    await publish("crash", *numbers, extras=json.dumps({"text": "x" * 60_000}))
    gave_up, keeps_up = asyncio.Event(), ReplayWriter._keeps_up

    async def noted(writer: ReplayWriter) -> bool:
        found = await keeps_up(writer)
        if not found:
            gave_up.set()
        return found

    monkeypatch.setattr("relay.history.writer._PATIENCE_S", 0.01)
    monkeypatch.setattr(ReplayWriter, "_keeps_up", noted)
    request = pb.StreamByGameRequest(game_slug="crash", start=pb.Start(last=len(numbers)))
    async with http.post(relay.proxy("StreamByGame"), headers=CONNECT_PROTO, data=envelope(request)) as response:
        async with asyncio.timeout(20):
            await gave_up.wait()
        got = [pb.Round.FromString((await element(response))[1]).round_id for _ in numbers]

    assert got == list(numbers)
