"""What time does to connections: deadlines, idle time, pings, age; and the timer that serves all of them."""

import asyncio
import itertools
from typing import Final

from h2.events import PingReceived

from relay.http2 import Http2Code, Http2Connections, Http2Limits, Http2Protocol
from relay.http2.http2_frames import PREFACE, FrameKind, data_frames, frame, goaway_frame, ping_frame, reset_frame
from tests.relay.http2.peers import ANSWER, Clock, MemoryTransport, Pair, Received, Recorder
from tests.waiting import until

_LIMITS: Final = Http2Limits()
_ANNOUNCED: Final = goaway_frame(2**31 - 1, 0) + ping_frame(b"leaving?", ack=False)


def answered(received: Received) -> None:
    received.stream.send_headers(ANSWER)


def after(pair: Pair, seconds: float) -> None:
    """Let time pass, with the looks that it has."""
    while seconds > 0:
        step = min(seconds, 1.0)
        pair.clock.now += step
        seconds -= step
        pair.connections.look()


def test_connection_without_a_preface() -> None:
    """It has ten seconds, whether it sends nothing or one byte at a time."""
    for pieces in (b"", b"PRI * HTTP/2"):
        clock = Clock()
        connections = Http2Connections(_LIMITS, clock=clock)
        transport = MemoryTransport()
        server = Http2Protocol(Recorder(), connections)
        server.connection_made(transport)
        for second in range(11):
            server.data_received(pieces[second : second + 1])
            clock.now += 1
            connections.look()

        assert transport.is_closed


def test_frame_and_header_block_without_an_end() -> None:
    """Sent one byte or one frame at a time, they have ten seconds too; other frames do not give them more."""
    pair = Pair()
    piece = frame(FrameKind.HEADERS, 0, 1, bytes(100))
    for at in range(11):
        pair.upload(piece[at : at + 1])
        after(pair, 1)
    assert pair.transport.is_closed

    pair = Pair()
    pair.upload(frame(FrameKind.HEADERS, 0, 1, b"\x82"))
    for _ in range(11):
        after(pair, 1)
        pair.upload(frame(FrameKind.CONTINUATION, 0, 1, b"\x00"))
    assert pair.transport.is_closed


def test_slow_but_steady_peer_stays() -> None:
    """Each frame has its own time."""
    pair = Pair()
    pair.upload(b"\0")
    for _ in range(30):
        after(pair, 5)
        pair.upload(ping_frame(bytes(8), ack=True)[1:] + b"\0")

    assert not pair.transport.is_closed


def test_idle_connection_is_asked_to_leave() -> None:
    """In two steps; then it is closed, if the client has not done so. One with a stream stays."""
    pair = Pair(Recorder(answered), limits=Http2Limits(keepalive_s=1e9))
    pair.request()
    after(pair, 1000)
    assert pair.goaways() == []
    pair.service.requests[0].stream.end()
    pair.settle()

    after(pair, _LIMITS.idle_s - 5)
    assert not pair.transport.written
    after(pair, 10)

    assert pair.transport.take().startswith(_ANNOUNCED)
    while not pair.transport.is_closed:
        after(pair, 1)
    assert not pair.transport.is_aborted


def test_old_connection_takes_no_more_streams() -> None:
    """Its streams stay until they end."""
    pair = Pair(Recorder(answered), limits=Http2Limits(keepalive_s=1e9, age_s=600))
    pair.request()
    after(pair, 601)
    assert pair.transport.take() == _ANNOUNCED + goaway_frame(1, 0)

    after(pair, 1000)
    assert not pair.transport.is_closed
    pair.service.requests[0].stream.end()
    after(pair, 3)

    assert pair.transport.is_closed


def test_silent_peer_is_pinged_and_cut() -> None:
    """Any byte is a sign of life."""
    pair = Pair(Recorder(answered))
    pair.request()
    for _ in range(5):
        after(pair, _LIMITS.keepalive_s + 1)
        pair.settle()  # the client answers
    assert sum(isinstance(event, PingReceived) for event in pair.events) == 5

    after(pair, _LIMITS.keepalive_s + _LIMITS.keepalive_timeout_s + 2)

    assert pair.transport.is_aborted
    rest = pair.server.connection_lost(None)
    assert rest is not None
    rest()
    assert pair.service.requests[0].losses == [None]


def test_stream_whose_end_is_not_read() -> None:
    """It is reset after a time, so that what is queued is not kept for ever; the others stay."""
    pair = Pair(Recorder(answered), window=100, limits=Http2Limits(keepalive_s=1e9))
    first, second = pair.request(), pair.request()
    pair.service.requests[0].stream.write(bytes(200))
    pair.service.requests[0].stream.end()
    pair.service.requests[1].stream.write(bytes(200))

    after(pair, _LIMITS.end_s + 2)
    pair.settle()

    assert pair.resets() == [(first, Http2Code.CANCEL)]
    assert len(pair.server.open_streams) == 1
    assert second not in dict(pair.resets())


def test_closed_connection_whose_peer_does_not_read() -> None:
    """It is cut when its last bytes are not taken."""
    pair = Pair()
    pair.upload(b"\0\0\0\x07\0\0\0\0\1")
    assert pair.transport.is_closed
    assert not pair.transport.is_aborted

    after(pair, 7)

    assert pair.transport.is_aborted


def test_stall_is_nobodys_silence() -> None:
    """A process that stood still for an hour asks again before it cuts its peers."""

    async def run() -> None:
        pair.connections._clock = clock
        task = asyncio.create_task(pair.connections.run())
        for _ in range(100):
            clock.now += pair.connections._tick_s
            await asyncio.sleep(0)
        clock.now += 3600
        for _ in range(40):
            clock.now += pair.connections._tick_s
            await asyncio.sleep(pair.connections._tick_s)
        task.cancel()

    pair = Pair(Recorder(answered), limits=Http2Limits(keepalive_s=1, preface_s=0.5))
    clock = pair.clock
    pair.request()

    asyncio.run(run())

    assert not pair.transport.is_closed
    assert pair.connections.now() < 1000 + 10


async def test_timer_looks_at_each_connection() -> None:
    """Within the shortest time that is kept."""
    connections = Http2Connections(Http2Limits(preface_s=0.05))
    transports = [MemoryTransport() for _ in range(40)]
    for transport in transports:
        Http2Protocol(Recorder(), connections).connection_made(transport)
    task = asyncio.create_task(connections.run())

    await until(lambda: all(transport.is_closed for transport in transports))
    task.cancel()


async def test_timer_rests_while_there_are_no_connections() -> None:
    """An idle relay is not woken; a connection that comes after a while has its times from then on."""
    times = itertools.count()
    connections = Http2Connections(Http2Limits(preface_s=0.05), clock=lambda: float(next(times)))
    task = asyncio.create_task(connections.run())
    for _ in range(10):
        await asyncio.sleep(0)
    looked = next(times)
    for _ in range(10):
        await asyncio.sleep(0)
    assert next(times) == looked + 1

    connections._clock = asyncio.get_running_loop().time
    transport = MemoryTransport()
    server = Http2Protocol(Recorder(), connections)
    server.connection_made(transport)
    await until(lambda: transport.is_closed)
    server.connection_lost(None)
    assert connections._stalled_s == 0
    task.cancel()


async def test_leave_and_abort_reach_all_connections() -> None:
    """When the port is closed."""
    connections = Http2Connections(Http2Limits(keepalive_s=0.1))
    transports = [MemoryTransport() for _ in range(40)]
    for transport in transports:
        server = Http2Protocol(Recorder(), connections)
        server.connection_made(transport)
        server.data_received(PREFACE + frame(FrameKind.SETTINGS, 0, 0))
        transport.take()

    await connections.leave()

    assert all(transport.take().startswith(goaway_frame(2**31 - 1, 0)) for transport in transports)
    connections.abort()
    assert all(transport.is_aborted for transport in transports)


def test_ping_that_comes_with_data_is_answered_with_data() -> None:
    """Not at once: clients such as grpc-go ping for each message until the answer comes. Alone if there is no data."""
    pair = Pair(Recorder(answered))
    stream_id = pair.request()
    stream = pair.service.requests[0].stream
    ping, pong = ping_frame(b"measure!", ack=False), ping_frame(b"measure!", ack=True)
    stream.write(b"round")
    pair.transport.take()

    pair.upload(ping)
    stream.write(b"round")
    assert pair.transport.take() == data_frames(stream_id, b"round")
    after(pair, 0.25)
    assert not pair.transport.written
    stream.write(b"round")
    assert pair.transport.take() == data_frames(stream_id, b"round") + pong
    stream.write(b"round")
    assert pair.transport.take() == data_frames(stream_id, b"round")

    pair.upload(ping)
    after(pair, 0.25)
    after(pair, 0.25)
    assert pair.transport.take() == pong


def test_ping_after_much_data_is_answered_at_once() -> None:
    """Peers that measure what comes before the answer would otherwise open their windows for megabytes."""
    pair = Pair(Recorder(answered))
    pair.request()
    ping, pong = ping_frame(b"measure!", ack=False), ping_frame(b"measure!", ack=True)
    pair.service.requests[0].stream.write(bytes(10_000))
    pair.transport.take()

    pair.upload(ping)

    assert pair.transport.take() == pong


async def test_stop_closes_connections_as_their_streams_end() -> None:
    """Those without streams at once, the others when their time is over."""
    connections = Http2Connections(Http2Limits(), clock=Clock())
    pairs = [Pair(Recorder(answered), connections=connections) for _ in range(3)]
    for pair in pairs[1:]:
        pair.request()
    stopping = asyncio.create_task(connections.stop(within_s=0.2))
    await asyncio.sleep(0)
    assert [pair.transport.is_closed for pair in pairs] == [True, False, False]
    pairs[1].service.requests[0].stream.end()
    pairs[0].server.connection_lost(None)
    await until(lambda: pairs[1].transport.is_closed)
    assert not pairs[2].transport.is_closed
    await stopping

    assert [pair.transport.is_aborted for pair in pairs[1:]] == [True, True]
    assert all(goaway_frame(pair.server._last_id(), 0) in pair.transport.written for pair in pairs)


def test_ping_without_data_is_answered_at_once() -> None:
    """So is the second of two, and that of a connection without streams."""
    pair = Pair(Recorder(answered))
    ping, pong = ping_frame(b"alive..?", ack=False), ping_frame(b"alive..?", ack=True)
    pair.upload(ping)
    assert pair.transport.take() == pong

    stream_id = pair.request()
    pair.service.requests[0].stream.write(b"round")
    pair.transport.take()
    pair.upload(ping + ping)
    assert pair.transport.take() == pong
    pair.upload(reset_frame(stream_id, Http2Code.CANCEL))
    after(pair, 1)
    after(pair, 1)
    assert pair.transport.take() == pong
