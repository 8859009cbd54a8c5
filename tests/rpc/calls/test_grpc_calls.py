"""Calls without a relay: what is answered before a method is asked, requests, answers, deadlines, cancellation."""

import asyncio
import gzip
import zlib
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import BadRequest, TooLarge
from relay.rpc.calls.call_head import CallHead, percent_encoded, timeout_s
from relay.rpc.calls.grpc_call import CallHandler, GrpcCall
from relay.rpc.calls.one_request import unary
from relay.rpc.calls.request_messages import RequestMessages, message_end, prefixed
from relay.rpc.status import Status, StatusError
from relay.rpc.status_code import StatusCode
from tests.rpc.calls.call_pair import PATH, REQUEST_BYTES, RETRY_MS, CallPair, pieces, turns
from tests.waiting import until

LATE_S: Final = 0.02
OVER_S: Final = 2 * LATE_S
"""Then it has passed."""


class Seen(CallHandler):
    """Keeps what comes; the test answers."""

    def __init__(self, call: GrpcCall) -> None:
        super().__init__(call)
        self.messages: list[bytes] = []
        self.is_half_closed = self.is_lost = False

    def message(self, data: bytes) -> None:
        self.messages.append(data)

    def half_closed(self) -> None:
        self.is_half_closed = True

    def lost(self) -> None:
        self.is_lost = True


class Recording:
    """A connection with one method, whose calls are kept."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[Seen] = []
        self.pair = CallPair({PATH: self._begin}, **options)

    def _begin(self, call: GrpcCall) -> Seen:
        handler = Seen(call)
        self.seen.append(handler)
        return handler


async def echo(_call: GrpcCall, data: bytes) -> bytes:
    return data


# --- before a method is asked --------------------------------------------------------------------------------------


async def test_requests_that_are_no_calls() -> None:
    """An HTTP status that proxies and browsers understand, and one of gRPC that says what to send."""
    pair = CallPair({PATH: unary(echo, within_s=1)})
    for replaced, status, sentence in (
        ({"content-type": "application/json"}, "415", "application/json is not supported"),
        ({"content-type": "application/grpc-web"}, "415", "application/grpc-web is not supported"),
        ({"content-type": ""}, "415", "no content-type"),
        ({":method": "GET"}, "405", "method GET is not supported"),
    ):
        call = pair.call(b"x", replaced=replaced)
        assert (b":status", status.encode()) in pair.headers(call)[0]
        code, message, _ = pair.status(call)
        assert code is StatusCode.INVALID_ARGUMENT
        assert sentence in message
    for kind in ("application/grpc", "application/grpc+proto", "Application/gRPC; charset=x"):
        call = pair.call(b"x", replaced={"content-type": kind})
        await turns()
        pair.settle()
        assert pair.messages(call) == [b"x"]


async def test_calls_that_are_refused_by_their_headers() -> None:
    """Trailers only: the status comes with the headers, and the method is not asked."""
    recording = Recording(most=1)
    pair = recording.pair
    refused = {
        "unknown method": (pair.call(b"", path="/test.Test/Nope"), StatusCode.UNIMPLEMENTED, "'/test.Test/Nope'"),
        "encoding": (
            pair.call(b"", metadata=[("grpc-encoding", "br")]),
            StatusCode.UNIMPLEMENTED,
            "grpc-encoding 'br' is not supported; send one of identity,gzip,deflate",
        ),
        "timeout": (pair.call(b"", metadata=[("grpc-timeout", "1d")]), StatusCode.INVALID_ARGUMENT, "'1d'"),
        "metadata": (
            pair.call(b"", metadata=[("x", "y" * 2000)]),
            StatusCode.RESOURCE_EXHAUSTED,
            "the limit is 2000",
        ),
    }
    assert recording.seen == []
    waiting = pair.call(ended=False)
    refused["too many"] = (pair.call(b""), StatusCode.RESOURCE_EXHAUSTED, str(RETRY_MS))
    for name, (call, code, said) in refused.items():
        found, message, trailers = pair.status(call)
        assert (found, len(pair.headers(call))) == (code, 1), name
        assert said in message, name
        assert ("grpc-accept-encoding" in trailers) is (name == "encoding")
    assert pair.status(refused["too many"][0])[2]["retry-after-ms"] == str(RETRY_MS)
    recording.seen[0].call.end()
    pair.settle()
    pair.call(b"")
    assert len(recording.seen) == 2
    assert pair.code(waiting) is StatusCode.OK


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("99999999S", 99_999_999)],
)
def test_units_of_timeouts(text: str, seconds: float) -> None:
    """All that the protocol has."""
    assert timeout_s(text, "grpc-timeout") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "+1S", "\u0661S", "1SS"])
def test_timeouts_that_are_malformed(text: str) -> None:
    """The error has the value."""
    with pytest.raises(BadRequest, match="grpc-timeout"):
        timeout_s(text, "grpc-timeout")


@pytest.mark.parametrize("text", ["AAEC/w==", "AAEC/w", "AAEC/w, AAEC/w"])
def test_binary_metadata(text: str) -> None:
    """With padding, without, and several values in one."""
    head = CallHead.read([(b":method", b"POST"), (b"content-type", b"application/grpc"), (b"trace-bin", text.encode())])

    assert head.binary("trace-bin") == b"\0\1\2\xff"
    assert head.binary("other-bin") is None


def test_status_messages_are_percent_encoded() -> None:
    """What is not printable ASCII, and the percent sign."""
    assert percent_encoded("é 100%\n~ ok\x7f") == b"%C3%A9 100%25%0A~ ok%7F"


async def test_refusal_waits_a_little_for_the_message() -> None:
    """A client that has not sent it yet would report an error of its own; one that sends none is answered soon."""
    recording = Recording()
    pair = recording.pair
    late, none = (pair.call(ended=False, path="/test.Test/Nope") for _ in range(2))
    await turns()
    pair.settle()
    assert pair.code(late) is pair.code(none) is None
    pair.client.send_data(late, prefixed(b""))
    pair.settle()
    assert pair.code(late) is StatusCode.UNIMPLEMENTED
    assert pair.code(none) is None

    def is_answered() -> bool:
        pair.settle()
        return pair.code(none) is StatusCode.UNIMPLEMENTED

    await until(is_answered)


# --- requests ------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 200), max_size=50), st.booleans())
def test_messages_of_any_split(messages: list[bytes], sizes: list[int], compressed: bool) -> None:
    """The same messages, wherever the bytes are cut."""
    reader, read = RequestMessages("gzip", REQUEST_BYTES), list[bytes]()
    packed = [b"\1" + len(data).to_bytes(4) + data for data in map(gzip.compress, messages)]
    wire = b"".join(packed if compressed else map(prefixed, messages))
    for piece in pieces(wire, sizes):
        read += reader.read(piece)

    assert read == messages
    assert not reader.is_partial
    ends = [sum(map(len, map(prefixed, messages[: count + 1]))) for count in range(len(messages))]
    plain = b"".join(map(prefixed, messages))
    for at in range(1, len(plain)):
        assert message_end(plain, at) == next(end for end in ends if end >= at)


def test_messages_that_are_refused() -> None:
    """As soon as it is known; a bomb is not decompressed."""
    with pytest.raises(TooLarge):
        list(RequestMessages("identity", 10).read(b"\0" + (11).to_bytes(4)))
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(TooLarge):
        list(RequestMessages("gzip", 20_000).read(b"\1" + len(bomb).to_bytes(4) + bomb))
    for encoding, member in (
        ("gzip", gzip.compress(b"x")),
        ("gzip", gzip.compress(b"")),
        ("deflate", zlib.compress(b"")),
    ):
        few, many = member * 16, member * 17
        assert len(next(RequestMessages(encoding, 1000).read(b"\1" + len(few).to_bytes(4) + few))) <= 16
        with pytest.raises(BadRequest, match="more than 16 members of"):
            list(RequestMessages(encoding, 1000).read(b"\1" + len(many).to_bytes(4) + many))
    with pytest.raises(BadRequest, match="begins with byte 2"):
        list(RequestMessages("identity", 10).read(b"\2\0\0\0\0"))
    with pytest.raises(StatusError) as failed:
        list(RequestMessages("identity", 10).read(b"\1\0\0\0\1x"))
    assert failed.value.status.code is StatusCode.INTERNAL
    for encoding, data, said in (
        ("gzip", b"nonsense", "is not gzip"),
        ("deflate", gzip.compress(b"x"), "is not deflate"),
        ("gzip", gzip.compress(b"x" * 100)[:-3], "truncated gzip"),
    ):
        with pytest.raises(BadRequest, match=said):
            list(RequestMessages(encoding, 1000).read(b"\1" + len(data).to_bytes(4) + data))
    whole = zlib.compress(b"hello")
    assert list(RequestMessages("deflate", 20).read(b"\1" + len(whole).to_bytes(4) + whole)) == [b"hello"]


async def test_request_that_ends_early() -> None:
    """Within a message, or without one: INVALID_ARGUMENT."""
    pair = CallPair({PATH: unary(echo, within_s=1)})
    partial, none = pair.call(body=b"\0\0\0\0\5abc"), pair.call()

    assert [pair.status(call)[:2] for call in (partial, none)] == [
        (StatusCode.INVALID_ARGUMENT, "the request ends within a message"),
        (StatusCode.INVALID_ARGUMENT, "the call has no request message"),
    ]


async def test_too_large_message() -> None:
    """It is refused by its length, and the rest of it is not waited for."""
    pair = CallPair({PATH: unary(echo, within_s=1)})
    call = pair.call(body=b"\0" + (REQUEST_BYTES + 1).to_bytes(4), ended=False)

    assert pair.code(call) is StatusCode.RESOURCE_EXHAUSTED
    assert pair.calls.open == 0


async def test_request_that_does_not_come() -> None:
    """DEADLINE_EXCEEDED, after the time for a request."""
    pair = CallPair({PATH: unary(echo, within_s=LATE_S)})
    call = pair.call(body=b"\0\0\0", ended=False)
    await asyncio.sleep(OVER_S)
    pair.settle()

    assert pair.code(call) is StatusCode.DEADLINE_EXCEEDED
    assert pair.calls.open == 0


# --- answers -------------------------------------------------------------------------------------------------------


async def test_order_of_an_answer() -> None:
    """Initial metadata, messages, and trailers, to a client that may still send."""
    recording = Recording()
    pair = recording.pair
    call = pair.call(b"a", b"bc", ended=False)
    [seen] = recording.seen
    seen.call.send_metadata((("place", "1-2"),))
    seen.call.send(b"one")
    seen.call.send(b"")
    seen.call.end(Status(StatusCode.UNAVAILABLE, "später", (("retry-after-ms", "5"),)))
    seen.call.end()
    pair.settle()

    assert seen.messages == [b"a", b"bc"]
    head, trailers = pair.headers(call)
    assert head == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,gzip,deflate"),
        (b"place", b"1-2"),
    ]
    assert trailers == [(b"grpc-status", b"14"), (b"grpc-message", b"sp%C3%A4ter"), (b"retry-after-ms", b"5")]
    assert pair.messages(call) == [b"one", b""]
    assert pair.calls.open == 0


async def test_half_close_and_later_messages() -> None:
    """A handler of a stream of requests sees each, and the end."""
    recording = Recording()
    pair = recording.pair
    call = pair.call(b"a", ended=False)
    pair.client.send_data(call, prefixed(b"b")[:3])
    pair.settle()
    [seen] = recording.seen
    assert (seen.messages, seen.is_half_closed) == ([b"a"], False)
    pair.client.send_data(call, prefixed(b"b")[3:], end_stream=True)
    pair.settle()

    assert (seen.messages, seen.is_half_closed) == ([b"a", b"b"], True)


async def test_cancelled_call() -> None:
    """The handler learns it once, and what it sends afterwards is dropped."""
    recording = Recording()
    pair = recording.pair
    call = pair.call(b"a")
    pair.client.reset_stream(call, 8)
    pair.settle()
    [seen] = recording.seen
    seen.call.send(b"late")
    seen.call.end()
    pair.settle()

    assert seen.is_lost
    assert pair.calls.open == 0
    assert pair.headers(call) == []


async def test_task_of_an_answer_ends_with_its_call() -> None:
    """When the client cancels it, and when its deadline has passed."""
    cancelled: list[str] = []

    async def forever(call: GrpcCall, _data: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(call.head.metadata["name"])
        return b""

    pair = CallPair({PATH: unary(forever, within_s=1)})
    one = pair.call(b"", metadata=[("name", "cancelled")])
    late = pair.call(b"", metadata=[("name", "late"), ("grpc-timeout", f"{int(LATE_S * 1000)}m")])
    await turns()
    pair.client.reset_stream(one, 8)
    pair.settle()
    await turns()
    assert cancelled == ["cancelled"]
    await asyncio.sleep(OVER_S)
    pair.settle()

    assert cancelled == ["cancelled", "late"]
    assert pair.code(late) is StatusCode.DEADLINE_EXCEEDED
    assert pair.calls.open == 0


@pytest.mark.parametrize("late", [b"\x02", b"\0\xff\xff\xff\xff", b"\0"], ids=["malformed", "too large", "partial"])
async def test_task_of_an_answer_ends_when_later_bytes_end_the_call(late: bytes) -> None:
    """Otherwise it would open a link for a stream that is over, which nobody would end."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def forever(_call: GrpcCall, _message: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    pair = CallPair({PATH: unary(forever, within_s=1)})
    stream_id = pair.call(b"request", ended=False)
    await asyncio.wait_for(begun.wait(), 10)
    pair.client.send_data(stream_id, late.ljust(5, b"\0"), end_stream=False)
    pair.client.send_data(stream_id, b"\0", end_stream=True)
    pair.settle()

    await asyncio.wait_for(cancelled.wait(), 10)
    assert pair.code(stream_id) in (StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED)
    assert pair.calls.open == 0


async def test_errors_of_a_method() -> None:
    """One that a client can get has its status; a bug is INTERNAL, and no text of it leaves."""

    async def fail(_call: GrpcCall, data: bytes) -> bytes:
        raise BadRequest("send more") if data == b"less" else ValueError("secret")

    pair = CallPair({PATH: unary(fail, within_s=1)})
    bad, bug = pair.call(b"less"), pair.call(b"")
    await turns()
    pair.settle()

    assert pair.status(bad)[:2] == (StatusCode.INVALID_ARGUMENT, "send more")
    code, message, _ = pair.status(bug)
    assert code is StatusCode.INTERNAL
    assert "secret" not in message


async def test_answer_that_waits_for_its_client() -> None:
    """`taken` ends when the client has room for all of it, or is gone."""
    recording = Recording(window=10)
    pair = recording.pair
    calls = [pair.call(b""), pair.call(b"")]
    waits = []
    for seen in recording.seen:
        seen.call.send(b"x" * 100)
        seen.call.end()
        waits.append(asyncio.create_task(seen.call.taken()))
    await turns()
    assert not any(wait.done() for wait in waits)
    pair.client.increment_flow_control_window(200, calls[0])
    pair.client.reset_stream(calls[1])
    pair.settle()
    await turns()

    assert all(wait.done() for wait in waits)
    assert pair.messages(calls[0]) == [b"x" * 100]
