"""Peers that want to keep this process busy, or to fill its memory. Each costs little, and is told why it ends."""

import gc
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Final

import pytest
from h2.events import DataReceived
from hypothesis import given
from hypothesis import strategies as st

from relay.http2 import (
    Fault,
    FaultReason,
    Http2Code,
    Http2Connections,
    Http2Limits,
    Http2Protocol,
    Http2Stream,
    http2_protocol,
)
from relay.http2.header_blocks import header_block
from relay.http2.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    FrameKind,
    data_frames,
    frame,
    header_frames,
    reset_frame,
)
from tests.relay.http2.peers import ANSWER, REQUEST, Clock, MemoryTransport, Pair, Received, Recorder

_BLOCK: Final = header_block(REQUEST)
_LIMITS: Final = Http2Limits()


def headers(stream_id: int, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(FrameKind.HEADERS, flags, stream_id, _BLOCK)


def reset(stream_id: int) -> bytes:
    return reset_frame(stream_id, Http2Code.CANCEL)


def flood(pair: Pair, make: Callable[[int], bytes], count: int = 3000) -> int:
    """Send frames until the connection has ended; return how many were sent."""
    for number in range(count):
        pair.upload(make(number))
        if pair.transport.is_closed:
            return number + 1
        pair.transport.take()
    raise AssertionError(f"{count} frames did not end the connection")


def assert_ended(pair: Pair, code: Http2Code, text: bytes) -> None:
    """The last frame is a GOAWAY with the reason, and the connection is closed."""
    assert pair.transport.is_closed
    last = pair.transport.take()[-len(text) - 17 :]
    assert last[3] == FrameKind.GOAWAY
    assert last[13:17] == code.to_bytes(4, "big")
    assert last[17:] == text
    assert not pair.server.open_streams


def answered(received: Received) -> None:
    received.stream.send_headers(ANSWER)


def test_rapid_reset() -> None:
    """CVE-2023-44487: streams that are reset as soon as they are open."""
    pair = Pair()

    sent = flood(pair, lambda number: headers(2 * number + 1) + reset(2 * number + 1))

    assert sent == _LIMITS.resets + 1
    text = "too many streams were reset"
    assert pair.faults == [Fault(Http2Code.ENHANCE_YOUR_CALM, text, ("192.0.2.1", 5), 0, FaultReason.RESETS)]
    assert_ended(pair, Http2Code.ENHANCE_YOUR_CALM, b"too many streams were reset")
    assert len(pair.service.requests) == sent


@pytest.mark.parametrize(
    "error",
    [
        lambda stream_id: frame(FrameKind.WINDOW_UPDATE, 0, stream_id, bytes(4)),
        lambda stream_id: frame(FrameKind.WINDOW_UPDATE, 0, stream_id, b"\x7f\xff\xff\xff"),
        lambda stream_id: headers(stream_id),  # trailers with fields of a request
    ],
    ids=["no increment", "too large a window", "wrong trailers"],
)
def test_peer_that_makes_us_reset(error: Callable[[int], bytes]) -> None:
    """CVE-2025-8671: streams that the server resets for an error of the peer are counted with the others."""
    pair = Pair()

    sent = flood(pair, lambda number: headers(2 * number + 1, END_HEADERS) + error(2 * number + 1))

    assert sent == _LIMITS.resets + 1
    assert_ended(pair, Http2Code.ENHANCE_YOUR_CALM, b"too many streams were reset")


def test_malformed_requests_are_resets() -> None:
    """They never reach the service, and are counted."""
    pair = Pair()
    block = header_block(REQUEST[1:])

    sent = flood(pair, lambda number: header_frames(2 * number + 1, block, ended=True))

    assert sent == _LIMITS.resets + 1
    assert pair.service.requests == []


def test_resets_of_streams_that_lived_are_not_counted() -> None:
    """A client may end its long streams, all at once; and the allowance is refilled with time."""
    pair = Pair(limits=Http2Limits(streams=1000))
    for number in range(500):
        pair.upload(headers(2 * number + 1))
    pair.clock.now += 2
    for number in range(500):
        pair.upload(reset(2 * number + 1))
    assert not pair.transport.is_closed

    for number in range(500, 500 + _LIMITS.resets):
        pair.upload(headers(2 * number + 1) + reset(2 * number + 1))
    pair.clock.now += 1
    for number in range(800, 800 + round(_LIMITS.resets_per_s)):
        pair.upload(headers(2 * number + 1) + reset(2 * number + 1))

    assert not pair.transport.is_closed


@pytest.mark.parametrize(
    ("make", "cost"),
    [
        (lambda _: frame(FrameKind.SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff"), 5),
        (lambda _: frame(FrameKind.SETTINGS, ACK, 0), 5),
        (lambda _: frame(FrameKind.PING, ACK, 0, bytes(8)), 1),
        (lambda _: frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), 1),
        (lambda _: frame(FrameKind.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), 1),
        (lambda _: frame(FrameKind.PRIORITY, 0, 5, bytes(5)), 1),
        (lambda _: frame(FrameKind.DATA, 0, 1), 1),
        (lambda _: frame(FrameKind.DATA, PADDED, 1, b"\x20" + bytes(32)), 1),
        (lambda _: frame(FrameKind.GOAWAY, 0, 0, bytes(8)), 1),
        (lambda _: frame(0xFA, 0, 0, b"grease"), 1),
        (lambda _: reset(3), 1),
        (lambda _: frame(FrameKind.DATA, 0, 3, b"late"), 1),
    ],
    ids=[
        "settings",
        "acks of settings",
        "answers to pings",
        "window of the connection",
        "window of a stream",
        "priority",
        "empty data",
        "data that is padding",
        "goaway",
        "unknown",
        "resets of a stream that is over",
        "data of a stream that is over",
    ],
)
def test_flood_of_frames_that_bring_nothing(make: Callable[[int], bytes], cost: int) -> None:
    """They have an allowance."""
    pair = Pair()
    pair.upload(headers(1, END_HEADERS) + headers(3, END_HEADERS))
    pair.service.requests[1].stream.abort()

    sent = flood(pair, make)

    assert sent <= _LIMITS.frames // cost + 1
    assert_ended(pair, Http2Code.ENHANCE_YOUR_CALM, b"too many frames without data")
    assert pair.service.requests[0].losses == [None]


def test_flood_of_refused_streams() -> None:
    """A client that does not care for the limit of streams."""
    pair = Pair(limits=Http2Limits(streams=10))

    sent = flood(pair, lambda number: headers(2 * number + 1))

    assert sent <= 10 + _LIMITS.frames // 5 + 1
    assert len(pair.service.requests) == 10


def test_pings_too_often() -> None:
    """gRPC clients know the word, and wait longer afterwards."""
    pair = Pair()

    assert flood(pair, lambda _: frame(FrameKind.PING, 0, 0, bytes(8))) == 4
    assert_ended(pair, Http2Code.ENHANCE_YOUR_CALM, b"too_many_pings")


def test_pings_that_are_welcome() -> None:
    """Those with our data, which measure the connection, and those that come seldom."""
    pair = Pair(Recorder(answered))
    pair.request()
    for _ in range(50):
        pair.service.requests[0].stream.write(b"round")
        pair.upload(frame(FrameKind.PING, 0, 0, b"measure!") * 2)
    for _ in range(50):
        pair.clock.now += _LIMITS.ping_s
        pair.upload(frame(FrameKind.PING, 0, 0, b"alive..?"))
        pair.connections.look()
    pair.download()

    assert pair.pongs() == 150
    assert not pair.transport.is_closed


@pytest.mark.parametrize(("window", "size"), [(65_535, 128), (65_535, 40), (5_000, 40), (10, 200)])
def test_client_that_answers_each_frame(window: int, size: int) -> None:
    """With two window updates and a ping: more frames than an allowance has, but no flood; also in small windows."""
    pair = Pair(Recorder(answered), window=window, holds=True)
    stream_id = pair.request()
    stream, answers = pair.service.requests[0].stream, 0
    while answers < 5000:
        stream.write(bytes(size))
        while data := pair.transport.take(1000):
            for event in pair.client.receive_data(data):
                if isinstance(event, DataReceived):
                    answers += 1
                    pair.client.increment_flow_control_window(len(event.data), stream_id)
                    pair.client.increment_flow_control_window(len(event.data))
                    pair.client.ping(b"are you?")
            pair.upload(pair.client.data_to_send())
            assert not pair.transport.is_closed
    assert len(pair.service.requests) == 1


@pytest.mark.parametrize("payload", [b"", b"\x00\x01a\x01b", bytes(16_384)], ids=["empty", "small", "large"])
def test_continuation_flood(payload: bytes) -> None:
    """CVE-2024-27316: a header block without an end."""
    pair = Pair()
    pair.upload(frame(FrameKind.HEADERS, END_STREAM, 1, _BLOCK))

    sent = flood(pair, lambda _: frame(FrameKind.CONTINUATION, 0, 1, payload))

    assert sent <= 16
    assert sent * len(payload) <= 4 * _LIMITS.header_bytes
    assert_ended(pair, Http2Code.ENHANCE_YOUR_CALM, b"a header block is too long")


def test_hpack_bomb() -> None:
    """A few bytes that mean a long list of headers."""
    pair = Pair()
    value = b"v" * 3900
    bomb = _BLOCK + b"\x40\x01a" + b"\x7f\xbd\x1d" + value + b"\xbe" * 4000

    pair.upload(frame(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, bomb))

    assert pair.transport.is_closed
    assert b"Oversized header block" in bytes(pair.transport.written)
    assert pair.service.requests == []


def test_headers_larger_than_announced_reach_the_service() -> None:
    """It refuses them in the words of its protocol; a client may not have known the limit."""
    pair = Pair(limits=Http2Limits(header_bytes=1000))
    pair.client.remote_settings.update({6: 100_000})
    pair.client.remote_settings.acknowledge()

    pair.request((*REQUEST, (b"token", b"t" * 2000)))

    assert pair.service.requests[0].stream.header_bytes > 2000


def test_client_that_does_not_read_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to its pings and settings are not kept without bound: the connection is cut."""
    monkeypatch.setattr(http2_protocol, "_UNREAD_BYTES", 90_000)
    pair = Pair(Recorder(answered), limits=Http2Limits(frames=10**9), window=1 << 30, holds=True)
    pair.request()
    pair.client.increment_flow_control_window(1 << 30)
    pair.upload()
    pair.service.requests[0].stream.write(bytes(1 << 20))

    most = 0
    for _ in range(1000):
        pair.service.requests[0].stream.write(b"x")
        pair.upload(frame(FrameKind.SETTINGS, 0, 0) * 20)
        most = max(most, len(pair.transport.written))
        if pair.transport.is_aborted:
            break

    assert pair.transport.is_aborted
    assert 90_000 < most < 91_000


def test_work_of_one_call_is_bounded() -> None:
    """Many frames in one piece are handled few at a time, and others have a turn in between."""
    pair = Pair()
    handled = []
    piece = frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 100
    before = pair.server._turns.granted

    has_more = pair.server.data_received(piece)
    while has_more:
        handled.append(pair.server._turns.granted - before)
        before = pair.server._turns.granted
        has_more = pair.server.data_received(b"")

    assert max(handled) == 16
    assert sum(handled) + pair.server._turns.granted - before == 100


def test_streams_that_ended_leave_no_garbage() -> None:
    """They are freed at once: a search for cycles would stop the process for all clients."""
    pair = Pair()
    gc.collect()
    gc.disable()
    try:
        for number in range(10):
            pair.upload(headers(6 * number + 1))
            pair.service.requests.pop().stream.send_headers(ANSWER, ended=True)
            pair.upload(headers(6 * number + 3, END_HEADERS) + reset(6 * number + 3))
            pair.upload(headers(6 * number + 5))
            pair.service.requests.pop().stream.abort()
        pair.service.requests.clear()
        found = sum(isinstance(each, Http2Stream) for each in gc.get_objects())
    finally:
        gc.enable()

    assert found == 0


def test_connection_that_is_lost_leaves_no_garbage() -> None:
    """Also with streams that had bytes to send; thousands may be lost at once."""
    connections = Http2Connections(_LIMITS, clock=Clock())
    service = Recorder(answered)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            server = Http2Protocol(service, connections)
            server.connection_made(MemoryTransport())
            server.data_received(PREFACE + frame(FrameKind.SETTINGS, 0, 0) + headers(1))
            server.data_received(headers(3, END_HEADERS))
            for request in service.requests:
                request.stream.write(bytes(100_000))
            service.requests.clear()
            rest = server.connection_lost(None)
            assert rest is not None
            rest()
            del server, request, rest
        found = [each for each in gc.get_objects() if isinstance(each, Http2Protocol | Http2Stream)]
    finally:
        gc.enable()

    assert found == []


def test_requests_of_one_call_are_bounded() -> None:
    """Those that cost more count more."""
    pair = Pair()

    assert pair.server.data_received(b"".join(headers(2 * number + 1) for number in range(20)))
    assert len(pair.service.requests) == 2


def test_memory_of_a_connection_that_fills_tables() -> None:
    """Header tables, ended streams and unfinished frames: the peer cannot make one connection large."""
    random = Random(1)
    pair = Pair(Recorder(lambda received: received.stream.send_headers(ANSWER, ended=True)))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            fields = header_block(REQUEST) + b"".join(
                b"\x40\x08" + random.randbytes(4).hex().encode() + b"\x01v" for _ in range(5)
            )
            pair.upload(frame(FrameKind.HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, fields))
            pair.transport.take()
            pair.service.requests.clear()
        pair.upload(frame(FrameKind.DATA, 0, 1, bytes(16_384))[:-1])
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert not pair.transport.is_closed
    assert pair.server._machine is not None
    assert len(pair.server._machine.streams) <= 5
    assert grown < 200_000  # of which the fields that connections share are most


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"\x16\x03\x01"])
def test_connection_that_is_not_http2(start: bytes) -> None:
    """It is closed at the first wrong byte."""
    pair = Pair()
    server = type(pair.server)(pair.service, pair.connections)
    server.connection_made(pair.transport)

    server.data_received(start)

    assert pair.transport.is_closed


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (frame(FrameKind.DATA, 0, 0, b"x"), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.DATA, 0, 7, b"x"), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.HEADERS, END_HEADERS, 2, _BLOCK), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.HEADERS, END_HEADERS, 0, _BLOCK), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), Http2Code.COMPRESSION_ERROR),
        (frame(FrameKind.CONTINUATION, END_HEADERS, 1, _BLOCK), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.HEADERS, 0, 1, _BLOCK) + frame(FrameKind.PING, 0, 0, bytes(8)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.PUSH_PROMISE, END_HEADERS, 1, bytes(4) + _BLOCK), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.PING, 0, 1, bytes(8)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.PING, 0, 0, bytes(7)), Http2Code.FRAME_SIZE_ERROR),
        (frame(FrameKind.RST_STREAM, 0, 7, bytes(4)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.RST_STREAM, 0, 0, bytes(4)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.RST_STREAM, 0, 1, bytes(3)), Http2Code.FRAME_SIZE_ERROR),
        (frame(FrameKind.PRIORITY, 0, 0, bytes(5)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.PRIORITY, 0, 1, bytes(4)), Http2Code.FRAME_SIZE_ERROR),
        (frame(FrameKind.PRIORITY, 0, 1, b"\0\0\0\1\0"), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.GOAWAY, 0, 1, bytes(8)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.WINDOW_UPDATE, 0, 0, bytes(4)), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), Http2Code.FLOW_CONTROL_ERROR),
        (frame(FrameKind.WINDOW_UPDATE, 0, 7, b"\0\0\0\1"), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.WINDOW_UPDATE, 0, 0, bytes(3)), Http2Code.FRAME_SIZE_ERROR),
        (frame(FrameKind.SETTINGS, 0, 1), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.SETTINGS, ACK, 0, bytes(6)), Http2Code.FRAME_SIZE_ERROR),
        (frame(FrameKind.SETTINGS, 0, 0, bytes(5)), Http2Code.FRAME_SIZE_ERROR),
        (frame(FrameKind.SETTINGS, 0, 0, b"\0\x02\0\0\0\x02"), Http2Code.PROTOCOL_ERROR),
        (frame(FrameKind.SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"), Http2Code.FLOW_CONTROL_ERROR),
        (frame(FrameKind.SETTINGS, 0, 0, bytes(6) * 65), Http2Code.ENHANCE_YOUR_CALM),
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", Http2Code.FRAME_SIZE_ERROR),
        (headers(5) + headers(3), Http2Code.PROTOCOL_ERROR),
    ],
)
def test_wrong_frame_ends_the_connection(wrong: bytes, code: Http2Code) -> None:
    """With the code of RFC 9113, at once."""
    pair = Pair()

    pair.upload(wrong)

    sent = bytes(pair.transport.written)
    at = sent.rindex(b"\x07\0\0\0\0\0")
    assert pair.transport.is_closed
    assert int.from_bytes(sent[at + 10 : at + 14], "big") == code
    assert b" at 0x" not in sent[at:]  # no address of the process, as texts of hpack have


@pytest.mark.parametrize("late", [data_frames(1, b"late"), headers(1)], ids=["data", "trailers"])
def test_request_that_does_not_end_at_its_end(late: bytes) -> None:
    """A stream error (RFC 9113 section 5.1); the service learns it, and sends no more."""
    pair = Pair(Recorder(answered))
    stream_id = pair.request()

    pair.upload(late)
    pair.service.requests[0].stream.write(b"more")

    assert pair.service.requests[0].losses == [Http2Code.STREAM_CLOSED]
    assert pair.transport.take() == reset_frame(stream_id, Http2Code.STREAM_CLOSED)


_frames = st.builds(
    frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x2D]),
    st.integers(0, 6),
    st.one_of(st.binary(max_size=20), st.just(_BLOCK), st.sampled_from([bytes(4), bytes(5), bytes(6), bytes(8)])),
)


@given(st.lists(_frames, max_size=30), st.lists(st.integers(1, 40), max_size=3).map(lambda sizes: [*sizes, 400]))
def test_any_frames_are_an_answer_or_an_end(frames: list[bytes], cuts: list[int]) -> None:
    """Nothing that a peer sends raises; each request is over when its connection is."""
    pair = Pair(Recorder(answered), cuts=cuts)

    pair.upload(b"".join(frames))
    rest = pair.server.connection_lost(None)
    if rest is not None:
        rest()

    for received in pair.service.requests:
        assert received.stream.is_closing()
        assert len(received.losses) == 1
