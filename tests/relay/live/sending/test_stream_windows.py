"""Batches that are sent past the transport of an HTTP/2 stream: `h2`, as the client, judges frames and windows."""

import asyncio
import os
import random
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, StreamEnded
from h2.settings import SettingCodes

from relay.http2 import DataBatch, Fault, Http2Connections, Http2Limits, Http2Protocol, Http2Stream
from relay.links.intake import Intake
from relay.live.encode import WebSocketText, frame
from relay.live.ending import Ender, ReconnectDelays
from relay.live.link import CloseReason
from relay.live.sending.sends import Sends
from relay.turns import Turns
from tests.relay.http2.peers import ANSWER, REQUEST, TRAILERS, Received, Recorder
from tests.relay.live.recording_link import RecordingLink
from tests.relay.live.sending.open_links import LANGUAGES, LOOPS, new_hub, sends_in
from tests.relay.live.test_hub import entry, json_of, subscription, turn

LIMITS: Final = Http2Limits(ping_s=0)
INITIAL_WINDOWS: Final = (0, 1000, 65_535, 200_000)


class BatchForm(WebSocketText):
    """Joins rounds into a batch for streams."""

    def join(self, parts: list[bytes]) -> Any:
        return DataBatch(super().join(parts))


class StreamRig:
    """A hub, and one connection of the engine with small socket buffers, whose client is `h2`."""

    def __init__(self, sends: Sends) -> None:
        self.hub = new_hub(sends, 16 << 20)
        self.service = Recorder(lambda request: request.stream.send_headers(ANSWER))
        self.faults: list[Fault] = []
        self.connections = Http2Connections(LIMITS, on_fault=self.faults.append)
        self.engine: Http2Protocol
        self.client = H2Connection(H2Configuration(client_side=True))
        self.events: list[Event] = []
        self._socket = socket.socket()

    async def connect(self) -> None:
        def accepted() -> Intake:
            self.engine = Http2Protocol(self.service, self.connections)
            return Intake(Turns(), self.engine)

        server = await asyncio.get_running_loop().create_server(accepted, "127.0.0.1", 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(server.sockets[0].getsockname())
        self._socket.setblocking(False)
        self.client.initiate_connection()
        while not len(self.connections):
            await self.move()
        self.engine.info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.close()

    async def move(self, most: int = 1 << 16) -> None:
        """Send what the client has to send, read some bytes, and let the loop turn."""
        if data := self.client.data_to_send():
            self._socket.setblocking(True)
            self._socket.sendall(data)
            self._socket.setblocking(False)
        try:
            if most and (data := self._socket.recv(most)):
                self.events += self.client.receive_data(data)
        except BlockingIOError:
            pass
        await asyncio.sleep(0)

    async def open_stream(self) -> Received:
        """Send a request; return it as the service gets it, after its head was sent."""
        stream_id, count = self.client.get_next_available_stream_id(), len(self.service.requests)
        self.client.send_headers(stream_id, REQUEST, end_stream=True)
        while len(self.service.requests) == count:
            await self.move()
        return self.service.requests[-1]

    def follow(self, stream: Http2Stream) -> RecordingLink:
        """Make a link of a stream, and subscribe it to crash."""
        link = RecordingLink(BatchForm(), ender=Ender(self.hub, ReconnectDelays(0), linger_s=60))
        link.transport = stream
        self.hub.add(link, subscription("crash"))
        return link

    def body(self, stream_id: int) -> bytes:
        return b"".join(
            event.data for event in self.events if isinstance(event, DataReceived) and event.stream_id == stream_id
        )

    def close(self) -> None:
        self._socket.close()


@contextmanager
def rig_of(sends: Sends) -> Iterator[StreamRig]:
    rig = StreamRig(sends)
    try:
        yield rig
    finally:
        rig.close()


Body = Callable[[StreamRig], Coroutine[Any, Any, None]]


@pytest.fixture(params=[f"{loop} {language}" for loop in LOOPS for language in LANGUAGES])
def run(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Runs the body of a test with a rig that is connected."""
    loop, language = request.param.split()
    sends = sends_in(language)

    def run(body: Body) -> None:
        async def main() -> None:
            with rig_of(sends) as rig:
                await rig.connect()
                await asyncio.wait_for(body(rig), 20)

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())

    return run


@pytest.mark.parametrize("seed", range(3))
def test_windows_and_order_hold_for_any_schedule(run: Callable[[Body], None], seed: int) -> None:
    """Windows grow and shrink, also below zero; pings and another stream come in between; the client reads slowly."""

    async def body(rig: StreamRig) -> None:
        chance, client = random.Random(seed), rig.client
        first, other = await rig.open_stream(), await rig.open_stream()
        link = rig.follow(first.stream)
        assert rig.hub.sends.language == "python" or link.outlet is not None
        wanted = {1: b"", 3: b""}
        disturbances = [
            lambda: client.increment_flow_control_window(chance.randint(1, 30_000)),
            lambda: client.increment_flow_control_window(chance.randint(1, 30_000), stream_id=1),
            lambda: client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: chance.choice(INITIAL_WINDOWS)}),
            lambda: client.ping(b"12345678"),
            rig.engine._turns.release_pong,
        ]
        for sequence in range(1, 121):
            round_ = entry(sequence, extras='{"text":"%s"}' % ("x" * chance.choice((1, 200, 5000, 20_000))))
            rig.hub.publish([round_])
            wanted[1] += frame(json_of(round_))
            for stream_id, request in ((1, first), (3, other)):
                if chance.random() < 0.1:
                    request.stream.write(b"alone")
                    wanted[stream_id] += b"alone"
            chance.choice(disturbances)()
            await rig.move(chance.choice((0, 3000, 1 << 16)))
            assert not rig.faults
            while rig.engine._turns.transport.get_write_buffer_size() > 100_000:
                await rig.move()  # a peer that sends and does not read is cut
        client.increment_flow_control_window(8 << 20)
        for stream_id in wanted:
            client.increment_flow_control_window(8 << 20, stream_id=stream_id)
        while any(len(rig.body(stream_id)) < len(data) for stream_id, data in wanted.items()):
            await rig.move()

        assert {stream_id: rig.body(stream_id) for stream_id in wanted} == wanted
        assert not any(isinstance(event, ConnectionTerminated) for event in rig.events)
        for _ in range(5):
            await rig.move()
        streams = {1: first.stream, 3: other.stream}
        windows = {number: client.streams[number]._inbound_window_manager.current_window_size for number in streams}
        assert {number: stream.window for number, stream in streams.items()} == windows
        assert rig.engine._turns.window == client._inbound_flow_control_window_manager.current_window_size

    run(body)


def test_rest_of_a_frame_comes_before_frames_of_other_streams(run: Callable[[Body], None]) -> None:
    """A later stream of the same connection stands before the first one in the channel, and the client reads slowly."""

    async def body(rig: StreamRig) -> None:
        chance, client = random.Random(14), rig.client
        first, other = await rig.open_stream(), await rig.open_stream()
        rig.follow(other.stream)
        link = rig.follow(first.stream)
        assert rig.hub.sends.language == "python" or link.outlet is not None
        client.increment_flow_control_window(8 << 20)
        for stream_id in (1, 3):
            client.increment_flow_control_window(8 << 20, stream_id=stream_id)
        wanted = b""
        for sequence in range(1, 121):
            round_ = entry(sequence, extras='{"text":"%s"}' % ("x" * 900))
            rig.hub.publish([round_])
            wanted += frame(json_of(round_))
            await rig.move(chance.choice((0, 3000, 1 << 16)))
        while len(rig.body(1) + rig.body(3)) < 2 * len(wanted):
            await rig.move()
            assert all(wanted.startswith(rig.body(stream_id)) for stream_id in (1, 3))

    run(body)


def fill(number: int) -> None:
    """Fill the buffer of a socket without its transport."""
    try:
        while True:
            os.write(number, bytes(1000))
    except BlockingIOError:
        pass


def test_batch_is_sent_past_a_transport_where_nothing_waits(run: Callable[[Body], None]) -> None:
    """Not when the stream, its connection or a window forbids it; then the stream decides."""

    async def body(rig: StreamRig) -> None:
        if rig.hub.sends.language != "c":
            return
        request = await rig.open_stream()
        stream, turns = request.stream, rig.engine._turns
        links: list[Any] = [rig.follow(stream)]
        send = rig.hub.sends.send
        batch = DataBatch(b"x" * 1000)
        before = stream.window, turns.window, turns.sent
        assert list(send(links, 0, 1, batch)) == []
        assert (stream.window, turns.window, turns.sent) == (before[0] - 1000, before[1] - 1000, before[2] + 1000)

        left = [(links[0], 0)]
        assert list(send(links, 0, 1, batch.first)) == left, "a stream takes batches only"
        assert list(send(links, 0, 1, DataBatch(b""))) == left
        assert list(send(links, 0, 1, DataBatch(b"x" * 70_000))) == left
        for owner, name, value in (
            (stream, "window", 999),
            (stream, "window", -5),
            (turns, "window", 999),
            (turns, "is_direct", False),
            (stream, "_queue", []),
        ):
            kept = getattr(owner, name)
            setattr(owner, name, value)
            assert list(send(links, 0, 1, batch)) == left, (name, value)
            assert getattr(owner, name) == value
            setattr(owner, name, kept)
        assert list(send(links, 0, 1, batch)) == []
        other = await rig.open_stream()
        assert rig.follow(other.stream).outlet is None, "its frames have another header"
        fill(links[0].outlet.fd)
        before = stream.window, turns.window, turns.sent
        assert list(send(links, 0, 1, batch)) == left, "the kernel takes nothing"
        assert (stream.window, turns.window, turns.sent) == before
        stream.end(TRAILERS)
        assert list(send(links, 0, 1, batch)) == left

    run(body)


@pytest.mark.parametrize("end", ["ended", "trailers", "reset by the client", "closed", "aborted"])
def test_stream_that_is_over_gets_nothing(run: Callable[[Body], None], end: str) -> None:
    """No frame follows the last one of a stream: `h2` would refuse it."""

    async def body(rig: StreamRig) -> None:
        request = await rig.open_stream()
        link = rig.follow(request.stream)
        rig.hub.publish([entry(1)])
        await turn(2)
        if end == "ended":
            link.end(CloseReason.DRAINING)
            request.stream.end()
        elif end == "trailers":
            request.stream.end(TRAILERS)
        elif end == "reset by the client":
            while not rig.body(1):
                await rig.move()
            rig.client.reset_stream(1)
            await rig.move()
            await turn(3)
        elif end == "closed":
            rig.engine.close()
        else:
            while not rig.body(1):
                await rig.move()
            rig.engine.abort()
        rig.hub.publish([entry(2)])
        await turn(3)
        rig.hub.publish([entry(3)])
        for _ in range(20):
            try:
                await rig.move()
            except ConnectionResetError:
                break

        assert rig.body(1) == frame(json_of(entry(1)))
        assert end not in ("ended", "trailers") or any(isinstance(event, StreamEnded) for event in rig.events)

    run(body)
