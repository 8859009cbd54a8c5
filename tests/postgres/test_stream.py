"""What a stream reports to the server, and when it is closed, without a server."""

import asyncio

import pytest

from backends.postgres.replication import replication_stream
from backends.postgres.replication.capture import Capture, TableRenamed
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

    def __init__(self, *given: bytes, at_once: int = 1) -> None:
        self.given = list(given)
        self.at_once = at_once
        self.failure: StreamLost | None = None
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.last: bytes | None = None

    async def receive(self) -> list[bytes]:
        if self.failure is not None:
            raise self.failure
        frames, self.given = self.given[: self.at_once], self.given[self.at_once :]
        return frames

    def fail(self, failure: StreamLost) -> None:
        self.failure = failure

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


KEEPALIVES = [frames.keepalive(START, reply=True)] * 5


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([frames.relation(name="public.rounds_old"), frames.begin(0x300)], "was renamed to"),
        ([frames.begin(0x300), frames.row(2, "8"), frames.commit(0x300)], "no games"),
        (KEEPALIVES[:1], "shutting down"),
    ],
    ids=["a table that is renamed", "a game that cannot be looked up", "a server that shuts down"],
)
async def test_rounds_before_what_ends_a_stream_are_yielded(
    monkeypatch: pytest.MonkeyPatch, sent: list[bytes], reason: str
) -> None:
    """They came in one read. The next stream begins after them, as they count as yielded."""
    monkeypatch.setattr(replication_stream, "_HURRY_S", 60.0)
    options = ReplicationOptions.read({"dsn": "postgresql://db/x", "game_slug_table": "games"})
    capture = Capture(options, CATALOGUE)
    (games,) = capture._games.values()
    games.learn({"7": "crash"})
    slot_offset = SlotOffset(capture, options)
    await slot_offset.choose_start({"systemid": "7", "timeline": "1", "xlogpos": "0/FFFF"}, Slot(START, "1.2", None))
    round_ = [frames.relation(), frames.begin(0x200), frames.row(1, "7"), frames.commit(0x200)]
    line = Line(*KEEPALIVES, *round_, *sent)

    async def read_games() -> None:
        raise StreamLost("no games")

    stream = ReplicationStream(line, capture, slot_offset, options, on_left=lambda: None, read_games=read_games)
    for _ in KEEPALIVES:
        await stream.receive()
    line.at_once = len(line.given)

    assert [item.offset.lsn for item in await stream.receive()] == [0x208]
    assert capture.start_lsn == 0x208
    with pytest.raises((StreamLost, TableRenamed), match=reason):
        await stream.receive()
