"""What a stream tells the server, and when it is let go of, without a server."""

import asyncio

import pytest

from backends.postgres.replication.capture import Capture
from backends.postgres.replication.protocol.connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions, Slot
from backends.postgres.replication.slot_offset import SlotOffset
from backends.postgres.replication.stream import ReplicationStream
from rounds import Catalogue
from tests.postgres import wal_frames as frames

OPTIONS = ReplicationOptions.read({"dsn": "postgresql://db/x"})
CATALOGUE = Catalogue.load()
START = 0x100


class Line(ReplicationConnection):
    """A link with nobody at the other end: yields what it is given and keeps what is sent."""

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
    """Up to where a status message lets the server forget."""
    assert frame is not None
    assert frame[:1] == b"r"
    return int.from_bytes(frame[9:17])


async def make(line: Line, left: asyncio.Event | None = None) -> tuple[ReplicationStream, Capture]:
    capture = Capture(OPTIONS, CATALOGUE)
    place = SlotOffset(capture, OPTIONS)
    await place.follow({"systemid": "7", "timeline": "1", "xlogpos": "0/FFFF"}, Slot(START, "1.2", None))
    return ReplicationStream(line, capture, place, OPTIONS, on_left=(left or asyncio.Event()).set), capture


async def read_all(stream: ReplicationStream, line: Line) -> None:
    while line.given:
        await stream.receive()


async def test_server_hears_soon_of_what_is_stored() -> None:
    """One message for all that was stored meanwhile, and no need for the timer that keeps the stream alive."""
    line = Line()
    stream, capture = await make(line)
    items = capture.feed([frames.relation(), *frames.transaction(0x200, 1), *frames.transaction(0x300, 2)])[0]
    for item in items:
        capture.confirm(item.offset)
        stream.confirmed()

    async with asyncio.timeout(5):
        assert confirmed(await line.sent.get()) == 0x308
    assert line.sent.empty()


async def test_last_word_is_the_last_place() -> None:
    """What was stored in the last moment does not come again after a restart; and there is no word after the last."""
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


async def test_stream_is_left_while_the_log_takes_nothing() -> None:
    """We would not see the server shut down, and it would wait for us; another process may do better."""
    line, left = Line(), asyncio.Event()
    stream, _ = await make(line, left)

    async with asyncio.timeout(5):
        with stream.given_out():
            await left.wait()
        await stream.close()

    assert confirmed(line.last) == START


async def test_server_that_asks_again_and_again_is_left_when_more_cannot_be_confirmed() -> None:
    """It shuts down, and would wait for what is not stored; it is answered until that is certain."""
    line = Line(frames.relation(), *frames.transaction(0x200, 1), *[frames.keepalive(0x300, reply=True)] * 20)
    stream, _ = await make(line)

    with pytest.raises(StreamLost, match="shutting down"):
        await read_all(stream, line)
    assert confirmed(line.sent.get_nowait()) == START


async def test_server_that_asks_again_and_again_is_answered_when_all_is_confirmed() -> None:
    """Then it can shut down, and ends the stream itself."""
    line = Line(*[frames.keepalive(START, reply=True)] * 20)
    stream, _ = await make(line)

    await read_all(stream, line)
    assert line.sent.qsize() == 20
