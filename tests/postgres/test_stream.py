"""What a stream reports to the server, and when it is closed, without a server."""

import asyncio

import pytest

from backends.postgres.replication.capture import Capture
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.replication_stream import ReplicationStream
from backends.postgres.replication.slot import ReplicationOptions, Slot
from backends.postgres.replication.slot_offset import SlotOffset
from rounds import Catalogue
from tests.postgres import wal_frames as frames

OPTIONS = ReplicationOptions.read({"dsn": "postgresql://db/x"})
CATALOGUE = Catalogue.load()
START = 0x100


class Line(ReplicationConnection):
    """A connection without a server: returns the given frames and keeps those that are sent."""

    def __init__(self, *given: bytes) -> None:
        self.given = list(given)
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.last: bytes | None = None

    async def receive(self) -> list[bytes]:
        return [self.given.pop(0)]

    def send(self, frame: bytes) -> None:
        self.sent.put_nowait(frame)

    async def close(self, last: bytes | None = None) -> None:
        self.last = last


def confirmed(frame: bytes | None) -> int:
    """The confirmed LSN of a status message."""
    assert frame is not None
    assert frame[:1] == b"r"
    return int.from_bytes(frame[9:17])


async def make(line: Line, left: asyncio.Event | None = None) -> tuple[ReplicationStream, Capture]:
    capture = Capture(OPTIONS, CATALOGUE)
    slot_offset = SlotOffset(capture, OPTIONS)
    await slot_offset.choose_start({"systemid": "7", "timeline": "1", "xlogpos": "0/FFFF"}, Slot(START, "1.2", None))
    return ReplicationStream(line, capture, slot_offset, OPTIONS, on_left=(left or asyncio.Event()).set), capture


async def read_all(stream: ReplicationStream, line: Line) -> None:
    while line.given:
        await stream.receive()


async def test_confirmations_are_reported_soon() -> None:
    """One status message reports all confirmations of 0.1 s, without the keep-alive timer."""
    line = Line()
    stream, capture = await make(line)
    items = capture.feed([frames.relation(), *frames.transaction(0x200, 1), *frames.transaction(0x300, 2)])[0]
    for item in items:
        capture.confirm(item.offset)
        stream.confirmed()

    async with asyncio.timeout(5):
        assert confirmed(await line.sent.get()) == 0x308
    assert line.sent.empty()


async def test_last_status_message_has_the_last_offset() -> None:
    """Rounds stored just before the end are not read again after a restart; nothing is sent after the last message."""
    line = Line()
    stream, capture = await make(line)
    (item,) = capture.feed([frames.relation(), *frames.transaction(0x200, 1)])[0]
    capture.confirm(item.offset)
    stream.confirmed()
    await stream.close()

    assert confirmed(line.last) == 0x208
    line.last = None
    await stream.close()
    stream.confirmed()
    assert line.last is None
    assert stream.lasted_s == 0


async def test_stream_is_closed_while_the_log_stores_nothing() -> None:
    """Otherwise we would not notice that the server shuts down, and it would wait for us."""
    line, left = Line(), asyncio.Event()
    stream, _ = await make(line, left)

    async with asyncio.timeout(5):
        with stream.leaving_if_stuck():
            await left.wait()
        await stream.close()

    assert confirmed(line.last) == START


async def test_stream_ends_when_the_server_requests_replies_in_a_loop_and_rounds_are_unconfirmed() -> None:
    """The server shuts down, and would wait for rounds that are not stored. Its first requests are answered."""
    line = Line(frames.relation(), *frames.transaction(0x200, 1), *[frames.keepalive(0x300, reply=True)] * 20)
    stream, _ = await make(line)

    with pytest.raises(StreamLost, match="shutting down"):
        await read_all(stream, line)
    assert confirmed(line.sent.get_nowait()) == START


async def test_server_that_requests_replies_in_a_loop_is_answered_when_all_is_confirmed() -> None:
    """The server can then shut down, and ends the stream itself."""
    line = Line(*[frames.keepalive(START, reply=True)] * 20)
    stream, _ = await make(line)

    await read_all(stream, line)
    assert line.sent.qsize() == 20
