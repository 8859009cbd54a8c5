"""Requests and answers on one connection: what a service gets, what its client gets, and how streams end."""

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from h2.settings import SettingCodes
from structlog.testing import capture_logs

from relay.http2 import DataBatch, Http2Code, Http2Limits
from relay.http2.connection_care import Leaving
from relay.http2.http2_frames import (
    ACK,
    END_STREAM,
    FrameKind,
    data_frames,
    frame,
    goaway_frame,
    ping_frame,
    reset_frame,
)
from tests.relay.http2.peers import ANSWER, REQUEST, TRAILERS, Pair, Received, Recorder

if TYPE_CHECKING:
    from relay.live.link import Sink

PING: Final = ping_frame(b"leaving?", ack=False)


def answered(received: Received) -> None:
    received.stream.send_headers(ANSWER)


def one_stream(**options: object) -> tuple[Pair, int, Received]:
    """Return a connection with a stream whose headers were sent."""
    pair = Pair(Recorder(answered), **options)  # type: ignore[arg-type]
    stream_id = pair.request()
    return pair, stream_id, pair.service.requests[0]


def test_request_and_answer() -> None:
    """The service gets headers and the body, the client headers, the body and trailers."""
    pair = Pair()

    stream_id = pair.request(body=b"question")
    received = pair.service.requests[0]
    received.stream.send_headers(ANSWER)
    received.stream.write(b"answer")
    received.stream.end(TRAILERS)
    pair.settle()

    assert received.headers == [*REQUEST]
    assert received.body == b"question"
    assert received.is_complete
    assert received.stream.header_bytes == sum(len(name) + len(value) + 32 for name, value in REQUEST)
    assert received.stream.get_extra_info("peername") == ("192.0.2.1", 5)
    assert pair.headers(stream_id) == [[*ANSWER], [*TRAILERS]]
    assert pair.body(stream_id) == b"answer"
    assert pair.has_ended(stream_id)
    assert received.losses == []


def test_trailers_only() -> None:
    """An answer may be headers alone."""
    pair = Pair(Recorder(lambda received: received.stream.send_headers([(b":status", b"404")], ended=True)))

    stream_id = pair.request()

    assert pair.headers(stream_id) == [[(b":status", b"404")]]
    assert pair.has_ended(stream_id)
    assert not pair.server.open_streams


def test_trailers_of_a_request_end_its_body() -> None:
    """Their fields are dropped."""
    pair = Pair()
    stream_id = pair.request(body=b"question", ended=False)
    received = pair.service.requests[0]
    assert not received.is_complete

    pair.client.send_headers(stream_id, [(b"x-sum", b"1")], end_stream=True)
    pair.settle()

    assert received.is_complete


def test_answer_that_ends_before_its_request() -> None:
    """The rest is dropped for a while, within one window; then the client is asked to stop (NO_ERROR)."""
    pair = Pair(Recorder(answered))
    stream_id = pair.request(ended=False)
    pair.service.requests[0].stream.end(TRAILERS)
    pair.client.send_data(stream_id, bytes(10_000))
    pair.settle()

    assert pair.has_ended(stream_id)
    assert pair.resets() == []
    assert pair.service.requests[0].body == b""
    pair.clock.now += 2
    pair.connections.look()
    pair.settle()

    assert pair.resets() == [(stream_id, Http2Code.NO_ERROR)]
    assert not pair.server.open_streams


@pytest.mark.parametrize("end", ["data", "trailers", "reset"])
def test_request_that_ends_after_its_answer(end: str) -> None:
    """It needs no reset; the window of the connection is open again."""
    pair = Pair(Recorder(lambda received: received.stream.send_headers(ANSWER, ended=True)))
    stream_id = pair.request(ended=False)
    for _ in range(6):
        pair.client.send_data(stream_id, bytes(10_000))
    pair.settle()
    match end:
        case "data":
            pair.client.send_data(stream_id, b"last", end_stream=True)
        case "trailers":
            pair.client.send_headers(stream_id, [(b"x-sum", b"1")], end_stream=True)
        case "reset":
            pair.client.reset_stream(stream_id)
    pair.settle()
    pair.clock.now += 2
    pair.connections.look()
    pair.settle()

    assert pair.resets() == []
    assert pair.client.outbound_flow_control_window > 30_000
    assert pair.server._machine is not None
    pair.request()
    assert len(pair.server._machine.streams) <= 5


def test_many_answers_before_their_requests_end() -> None:
    """Their number is bounded, with the open streams."""
    pair = Pair(
        Recorder(lambda received: received.stream.send_headers(ANSWER, ended=True)), limits=Http2Limits(streams=10)
    )
    pair.client.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
    pair.client.remote_settings.acknowledge()
    for _ in range(11):
        pair.request(ended=False)

    assert len(pair.resets()) == 11


def test_equal_headers_are_equal_bytes() -> None:
    """Header blocks have no state: the second answer of a connection is as the first, without the size update."""
    pair = Pair()
    blocks = []
    for _ in range(3):
        pair.request()
        pair.service.requests[-1].stream.send_headers(ANSWER)
        blocks.append(pair.transport.take()[9:])
        pair.client.receive_data(b"")

    assert blocks[0] == b"\x20" + blocks[1]
    assert blocks[1] == blocks[2]


def test_headers_longer_than_a_frame() -> None:
    """They are continued."""
    pair = Pair()
    stream_id = pair.request()
    fields = [(b":status", b"200"), *((b"x-%d" % number, b"v" * 5000) for number in range(8))]
    pair.service.requests[0].stream.send_headers(fields, ended=True)
    pair.settle()

    assert pair.headers(stream_id) == [fields]


@pytest.mark.parametrize("field", [(b"X-A", b"1"), (b"a", b"1\r\nb: 2"), (b"a", b"1 "), (b"", b"1"), (b"a", b"\0")])
def test_header_that_is_not_allowed(field: tuple[bytes, bytes]) -> None:
    """It raises, and nothing is sent."""
    pair = Pair()
    pair.request()

    with pytest.raises(ValueError, match="is not allowed in HTTP/2"):
        pair.service.requests[0].stream.send_headers([(b":status", b"200"), field])

    assert not pair.transport.written


def test_trailer_that_is_not_allowed() -> None:
    """It raises before anything is queued, and the stream can still be ended."""
    pair, stream_id, received = one_stream(window=1)
    received.stream.write(b"body")
    with pytest.raises(ValueError, match="is not allowed in HTTP/2"):
        received.stream.end([(b"grpc-message", b"a\nb")])

    received.stream.end(TRAILERS)
    pair.client.increment_flow_control_window(10, stream_id)
    pair.settle()

    assert pair.headers(stream_id)[1:] == [[*TRAILERS]]


def test_body_before_headers_is_a_bug() -> None:
    """It raises; headers twice as well."""
    pair = Pair()
    pair.request()
    stream = pair.service.requests[0].stream

    with pytest.raises(ValueError, match="come before its body"):
        stream.write(b"x")
    with pytest.raises(ValueError, match="come before its end"):
        stream.end()
    stream.send_headers(ANSWER)
    with pytest.raises(ValueError, match="were sent before"):
        stream.send_headers(ANSWER)


def test_streams_of_own_connections_share_their_frame() -> None:
    """A batch is framed once for all streams with the id 1; what is written is that object."""
    batch = DataBatch(b"round")

    assert batch.frames(1) is batch.first
    assert batch.frames(1)[:9] == b"\0\0\x05\0\0\0\0\0\x01"
    assert batch.frames(3) == b"\0\0\x05\0\0\0\0\0\x03round"
    assert batch.frames(3) is batch.frames(3)
    assert len({id(batch.frames(number)) for number in (101, 101)}) == 1


def test_write_within_the_windows_is_one_write() -> None:
    """Nothing is queued."""
    pair, stream_id, received = one_stream()
    before = pair.transport.writes

    received.stream.write(DataBatch(b"round"))

    assert pair.transport.writes == before + 1
    assert received.stream.get_write_buffer_size() == 0
    pair.settle()
    assert pair.body(stream_id) == b"round"


def test_streams_take_turns() -> None:
    """A frame each: one with much to send does not delay the others of its connection."""
    pair = Pair(Recorder(answered), window=1 << 20, holds=True)
    ids = [pair.request() for _ in range(3)]
    pair.client.increment_flow_control_window(1 << 20)
    pair.settle()
    for request in pair.service.requests:
        request.stream.write(bytes(200_000))

    while sum(len(pair.body(number)) for number in ids) < 400_000:
        pair.download(10_000)

    sizes = [len(pair.body(number)) for number in ids]
    assert max(sizes) - min(sizes) <= 16_384 * 6  # what was in the transport before the others wrote


def test_unsent_bytes_are_counted() -> None:
    """Those that the window keeps back, and those in the transport."""
    pair, stream_id, received = one_stream(holds=True, window=1000)
    sink: Sink = received.stream

    sink.write(bytes(1500))
    assert sink.get_write_buffer_size() == 500 + 1000 + 9
    pair.settle()
    assert sink.get_write_buffer_size() == 500

    pair.client.increment_flow_control_window(10, stream_id)
    pair.settle()
    assert received.stream.get_write_buffer_size() == 490


def test_transport_is_not_filled() -> None:
    """Streams queue when it holds 64 KB, so that an end or an answer to a ping is not far behind."""
    pair = Pair(Recorder(answered), window=1 << 20, holds=True)
    stream_id = pair.request()
    pair.client.increment_flow_control_window(1 << 20)
    pair.settle()
    stream = pair.service.requests[0].stream
    for _ in range(10):
        stream.write(bytes(50_000))

    assert len(pair.transport.written) < 101_000
    assert stream.queued_bytes == 400_000
    pair.settle()
    assert len(pair.body(stream_id)) == 500_000


def test_windows_that_the_client_makes_smaller() -> None:
    """A window may be negative; the rest follows when it has grown again (RFC 9113 section 6.9.2)."""
    pair, stream_id, received = one_stream(window=1000)
    received.stream.write(bytes(1000))
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    pair.settle()
    received.stream.write(b"rest")
    assert received.stream.window == 10 - 1000

    pair.client.increment_flow_control_window(990, stream_id)
    pair.settle()
    assert len(pair.body(stream_id)) == 1000
    pair.client.increment_flow_control_window(4, stream_id)
    pair.settle()

    assert pair.body(stream_id)[1000:] == b"rest"


def test_window_that_is_announced_twice_in_one_frame() -> None:
    """The last value counts, and nothing is sent for the first one; the answer comes before what it allows."""
    pair, stream_id, received = one_stream(window=0)
    received.stream.write(bytes(25))
    pair.upload(frame(FrameKind.SETTINGS, 0, 0, b"\0\4\0\0\0\x64" + b"\0\4\0\0\0\1"))

    assert received.stream.queued_bytes == 24
    assert pair.transport.take() == frame(FrameKind.SETTINGS, ACK, 0) + data_frames(stream_id, bytes(1))


def test_largest_window_announced_twice() -> None:
    """It is a value and no increment."""
    pair, stream_id, received = one_stream(window=10)
    for size in (2**31 - 1, 2**31 - 1, 20, 20):
        pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
        pair.settle()
        assert received.stream.window == size

    received.stream.write(bytes(25))
    pair.settle()

    assert len(pair.body(stream_id)) == 20
    assert not pair.transport.is_closed


def test_client_that_resets_a_stream() -> None:
    """The service learns the code, once; what it writes afterwards is dropped."""
    pair, stream_id, received = one_stream(window=10)
    received.stream.write(bytes(100))
    pair.settle()

    pair.client.reset_stream(stream_id, Http2Code.CANCEL)
    pair.settle()
    received.stream.write(b"more")
    received.stream.end()
    received.stream.abort()
    pair.settle()

    assert received.losses == [Http2Code.CANCEL]
    assert received.stream.is_closing()
    assert received.stream.get_write_buffer_size() == 0
    assert pair.goaways() == []


def test_abort_resets_one_stream() -> None:
    """Others of the connection stay; frames for it that were on the way do no harm."""
    pair = Pair(Recorder(answered))
    first, second = pair.request(ended=False), pair.request()

    pair.service.requests[0].stream.abort()
    pair.client.send_data(first, b"late")  # before it has read the reset
    pair.settle()
    pair.service.requests[1].stream.write(b"alive")
    pair.settle()

    assert (first, Http2Code.CANCEL) in pair.resets()
    assert pair.body(second) == b"alive"
    assert pair.service.requests[0].losses == []


@pytest.mark.parametrize("size", [500, 1500])
def test_reset_after_what_was_written(size: int) -> None:
    """The client gets all of it first, also what its window keeps back."""
    pair, stream_id, received = one_stream(window=1000)
    done: list[bool] = []
    received.stream.on_done = lambda: done.append(True)

    received.stream.write(bytes(size))
    received.stream.reset_later(Http2Code.INTERNAL_ERROR)
    pair.settle()
    assert pair.resets() == ([] if size > 1000 else [(stream_id, Http2Code.INTERNAL_ERROR)])
    received.stream.write(b"ignored")
    if size > 1000:
        pair.client.increment_flow_control_window(1000, stream_id)
        pair.settle()

    assert len(pair.body(stream_id)) == size
    assert pair.resets() == [(stream_id, Http2Code.INTERNAL_ERROR)]
    assert done == [True]
    assert received.losses == []
    assert not pair.server.open_streams


def test_lost_connection() -> None:
    """Each open stream is lost, in a later turn; writers that wait are woken."""
    pair, _, received = one_stream()
    rest = pair.server.connection_lost(None)

    assert received.stream.is_closing()
    assert received.losses == []
    assert rest is not None
    rest()

    assert received.losses == [None]
    assert len(pair.connections) == 0
    received.stream.write(b"x")
    received.stream.end()


def test_stream_that_is_handed_over_before_its_loss_is_known() -> None:
    """A call becomes a link while the loss of its connection waits for a turn: the link learns it."""
    pair, _, received = one_stream()
    rest = pair.server.connection_lost(None)
    link = Received(received.stream, ())
    received.stream.receiver = link
    assert rest is not None
    rest()

    assert link.losses == [None]
    assert received.losses == []


async def test_drained_waits_for_the_client() -> None:
    """It returns when little is unsent, or when the stream is over."""
    pair, stream_id, received = one_stream(window=0)
    received.stream.write(bytes(100_000))
    waiting = asyncio.create_task(received.stream.drained())
    await asyncio.sleep(0)
    assert not waiting.done()

    pair.client.increment_flow_control_window(100_000)
    pair.client.increment_flow_control_window(90_000, stream_id)
    pair.settle()
    await asyncio.wait_for(waiting, 5)

    received.stream.write(bytes(100_000))
    waiting = asyncio.create_task(received.stream.drained())
    await asyncio.sleep(0)
    pair.client.reset_stream(stream_id)
    pair.settle()
    await asyncio.wait_for(waiting, 5)


def test_service_that_fails() -> None:
    """A bug ends one stream, and is logged with its traceback."""

    def fail(received: Received) -> None:
        if len(pair.service.requests) == 1:
            raise RuntimeError("bug")
        received.stream.send_headers(ANSWER, ended=True)

    pair = Pair(Recorder(fail))
    with capture_logs() as logs:
        first, second = pair.request(), pair.request()

    assert [(line["event"], line["stream"], line["exc_info"]) for line in logs] == [
        ("http2_stream_failed", first, True)
    ]
    assert pair.resets() == [(first, Http2Code.INTERNAL_ERROR)]
    assert pair.has_ended(second)


def test_more_streams_than_allowed_are_refused() -> None:
    """One by one; open ones stay, and the client may try again."""
    pair = Pair(limits=Http2Limits(streams=2))
    pair.client.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
    pair.client.remote_settings.acknowledge()
    ids = [pair.request() for _ in range(3)]
    assert pair.resets() == [(ids[2], Http2Code.REFUSED_STREAM)]

    pair.service.requests[0].stream.send_headers(ANSWER, ended=True)
    pair.settle()

    assert len(pair.service.requests) == 2
    pair.request()
    assert len(pair.service.requests) == 3


def test_limits_are_announced() -> None:
    """In our settings, which come first."""
    pair = Pair(limits=Http2Limits(streams=7, header_bytes=5000))

    assert pair.client.remote_settings.max_concurrent_streams == 7
    assert pair.client.remote_settings.max_header_list_size == 5000


@pytest.mark.parametrize(
    "wrong",
    [
        ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a")),
        (*REQUEST, (b"connection", b"close")),
        (*REQUEST, (b"te", b"gzip")),
        (*REQUEST, (b"X-Upper", b"1")),
        (*REQUEST, (b":late", b"1")),
        (*REQUEST, (b"content-length", b"x")),
        (*REQUEST, (b"a", b"1\n2")),
    ],
)
def test_malformed_request_ends_its_stream_only(wrong: tuple[tuple[bytes, bytes], ...]) -> None:
    """Behind a proxy, others share the connection (RFC 9113 section 8.1.1)."""
    pair, good, received = one_stream()
    pair.client.config.validate_outbound_headers = pair.client.config.normalize_outbound_headers = False

    bad = pair.request(wrong)
    received.stream.write(b"alive")
    pair.settle()

    assert pair.resets() == [(bad, Http2Code.PROTOCOL_ERROR)]
    assert pair.body(good) == b"alive"
    assert len(pair.service.requests) == 1
    pair.client.config.validate_outbound_headers = pair.client.config.normalize_outbound_headers = True
    pair.request()
    assert len(pair.service.requests) == 2


def test_request_without_an_authority() -> None:
    """As in HAProxy's health checks: the service gets an empty one. The trailers of a request get none."""
    pair = Pair()
    pair.client.config.validate_outbound_headers = False
    fields = (*REQUEST[:3], *REQUEST[4:])

    stream_id = pair.request(fields, body=b"question", ended=False)
    pair.client.send_headers(stream_id, [(b"x-late", b"1")], end_stream=True)
    pair.settle()

    (received,) = pair.service.requests
    assert received.headers == [(b":authority", b""), *fields]
    assert received.is_complete
    assert pair.resets() == []


def test_body_of_another_length_than_announced_ends_its_stream_only() -> None:
    """The service learns that the stream was reset."""
    pair, good, received = one_stream()

    bad = pair.request((*REQUEST, (b"content-length", b"3")), body=b"four")
    received.stream.write(b"alive")
    pair.settle()

    assert pair.resets() == [(bad, Http2Code.PROTOCOL_ERROR)]
    assert pair.service.requests[1].losses == [Http2Code.PROTOCOL_ERROR]
    assert pair.body(good) == b"alive"


@pytest.mark.parametrize("announced", [b"3", b"99"])
def test_request_without_the_body_that_it_announced_ends_its_stream_only(announced: bytes) -> None:
    """A handler would wait for the body; h2 compares lengths only where DATA ends the request."""
    pair, good, received = one_stream()

    bad = pair.request((*REQUEST, (b"content-length", announced)))
    received.stream.write(b"alive")
    pair.settle()

    assert pair.resets() == [(bad, Http2Code.PROTOCOL_ERROR)]
    assert len(pair.service.requests) == 1
    assert pair.body(good) == b"alive"


@pytest.mark.parametrize(("body", "is_whole"), [(b"12", False), (b"123", True)])
def test_trailers_end_a_body_of_the_announced_length(body: bytes, is_whole: bool) -> None:
    """With fewer bytes the request is malformed."""
    pair, _, _ = one_stream()
    stream_id = pair.request((*REQUEST, (b"content-length", b"3")), body=body, ended=False)

    pair.client.send_headers(stream_id, [(b"x-sum", b"1")], end_stream=True)
    pair.settle()

    received = pair.service.requests[1]
    assert received.is_complete is is_whole
    assert received.losses == ([] if is_whole else [Http2Code.PROTOCOL_ERROR])
    assert pair.resets() == ([] if is_whole else [(stream_id, Http2Code.PROTOCOL_ERROR)])


def test_large_body_of_a_request() -> None:
    """The client's windows are opened as it is handled."""
    pair = Pair()
    stream_id = pair.request(ended=False)
    body = bytes(range(256)) * 2000
    for at in range(0, len(body), 10_000):
        pair.client.send_data(stream_id, body[at : at + 10_000], end_stream=at + 10_000 >= len(body))
        pair.settle()

    assert pair.service.requests[0].body == body


def test_request_that_is_held() -> None:
    """Its client stops after one window, and other requests of the connection do not; it goes on when it may."""
    pair = Pair()
    held, other = pair.request(ended=False), pair.request(ended=False)
    pair.service.requests[0].stream.hold()
    sent = 0
    while sent < 100_000 and (room := pair.client.local_flow_control_window(held)) > 0:
        pair.client.send_data(held, bytes(min(room, 10_000)))
        sent += min(room, 10_000)
        pair.settle()
    assert sent == 65_535
    for _ in range(20):
        pair.client.send_data(other, bytes(10_000))
        pair.settle()
    assert len(pair.service.requests[1].body) == 200_000

    pair.service.requests[0].stream.proceed()
    pair.settle()
    pair.client.send_data(held, b"last", end_stream=True)
    pair.settle()

    assert len(pair.service.requests[0].body) == 65_539
    assert pair.service.requests[0].is_complete


def test_small_request_needs_no_window_update() -> None:
    """A request and its answer are as few frames as there can be."""
    pair = Pair(Recorder(answered))
    pair.request(body=b"question")
    before = len(pair.transport.written)

    pair.service.requests[0].stream.write(b"answer")
    pair.service.requests[0].stream.end(TRAILERS)

    assert before == 0
    assert bytes(pair.transport.written).count(b"\0\0\x04\x08") == 0


def test_leaving_has_two_steps() -> None:
    """A request on its way is served; the client then knows which ones are; open streams stay until they end."""
    pair, first, received = one_stream()
    on_its_way = pair.client.get_next_available_stream_id()
    pair.client.send_headers(on_its_way, REQUEST, end_stream=True)

    pair.server.leave(Leaving.ANNOUNCED)
    assert pair.transport.take() == goaway_frame(2**31 - 1, Http2Code.NO_ERROR) + PING
    pair.upload()
    pair.transport.take()
    assert pair.service.requests[1].stream.id == on_its_way
    pair.upload(PING[:4] + b"\1" + PING[5:])

    assert pair.transport.take() == goaway_frame(on_its_way, Http2Code.NO_ERROR)
    received.stream.write(b"last")
    received.stream.end()
    assert pair.transport.take() == data_frames(first, b"last") + frame(FrameKind.DATA, END_STREAM, first)
    assert not pair.transport.is_closed


def test_stream_after_the_last_step_is_refused() -> None:
    """And its headers are read, so that those of later frames can be."""
    pair, _, _ = one_stream()
    pair.server.leave(Leaving.ANNOUNCED)
    pair.server.leave(Leaving.FINAL)
    pair.transport.take()

    stream_id = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream_id, REQUEST, end_stream=True)
    pair.upload()

    assert pair.transport.take() == reset_frame(stream_id, Http2Code.REFUSED_STREAM)
    assert len(pair.service.requests) == 1


def test_goaway_of_the_client() -> None:
    """It is about streams that a server opens: those of the client stay, and may even become more."""
    pair, first, received = one_stream()
    pair.upload(goaway_frame(0, Http2Code.NO_ERROR))

    received.stream.write(b"alive")
    pair.settle()
    pair.client.increment_flow_control_window(5, first)
    pair.settle()

    assert pair.body(first) == b"alive"
    assert not pair.transport.is_closed
