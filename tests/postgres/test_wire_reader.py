"""What a server sends, in pieces of any size: rows come whole, logical messages that are not ours are dropped."""

import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.postgres.replication.protocol.pgoutput import InvalidMessage, LogicalMessage, decode
from backends.postgres.replication.protocol.wal import DATA_START
from backends.postgres.replication.protocol.wire_reader import (
    ServerMessage,
    WireReader,
    client_message,
    column_names,
    column_values,
    fields_of,
)
from tests.postgres import wal_frames as frames

OURS: Final = "stream_relay"
LIMIT: Final = 100


def reader() -> WireReader:
    return WireReader(OURS.encode(), LIMIT)


def sent(*frames_: bytes) -> bytes:
    """The messages of a server that carry these frames."""
    return b"".join(client_message(b"d", frame) for frame in frames_)


def fed(wire: WireReader, data: bytes, sizes: Iterable[int]) -> list[ServerMessage]:
    """Feed `data` in pieces: of these sizes, then the rest."""
    others: list[ServerMessage] = []
    at = 0
    for size in sizes:
        others += wire.feed(data[at : at + size])
        at += size
    return others + wire.feed(data[at:])


def meaning(frame: bytes) -> tuple[object, ...]:
    """What a frame means to the capture: of a message that is not ours only that it was there."""
    message = decode(frame, DATA_START)
    if not isinstance(message, LogicalMessage):
        return (frame,)
    ours = message.prefix == OURS
    content = message.content.tobytes() if ours and message.size <= LIMIT else b""
    return (ours, message.lsn, message.transactional, message.size if ours else 0, content)


SENT: Final[Sequence[bytes]] = (
    frames.relation(),
    frames.row(1),
    frames.message(7, "other", b"x" * 300, transactional=True),
    frames.message(8, OURS, b"x" * LIMIT, transactional=True),
    frames.message(9, OURS, b"x" * (LIMIT + 1), transactional=True),
    frames.message(10, OURS + "2", b"x" * 300),
    frames.message(11, OURS[:-1], b""),
    frames.message(12, "long" * 50, b"x"),
    frames.message(13, "", b"M" * 300),
    frames.insert("1", "M" * 500),
    frames.commit(0x200),
)


@given(st.lists(st.integers(1, 400), max_size=40))
def test_stream_in_any_pieces_means_the_same(sizes: list[int]) -> None:
    """Rows and our messages are whole; of a larger one of ours the size remains; others keep their LSN."""
    wire = reader()
    notice = client_message(b"N", b"C01000\0Mcareful\0\0")
    others = fed(wire, sent(*SENT[:5]) + notice + sent(*SENT[5:]), sizes)

    assert [meaning(frame) for frame in wire.take(100, 1 << 20)] == [meaning(frame) for frame in SENT]
    assert [fields_of(body) for _, body in others] == [{"C": b"01000", "M": b"careful"}]
    assert wire.held_bytes == 0


@pytest.mark.parametrize("piece", [1, 40, 500])
@pytest.mark.parametrize(
    "frame",
    [
        frames.message(7, "other", b"x" * 10_000),
        frames.message(7, "x" * 10_000, b"x"),
        frames.message(7, OURS, b"x" * 10_000, transactional=True),
    ],
)
def test_large_message_is_not_held_while_it_arrives(piece: int, frame: bytes) -> None:
    """No more than what arrived at once is kept, also of its prefix; the frame after it is read."""
    wire = reader()
    data = sent(frame, frames.row(1))
    held = 0
    for at in range(0, len(data), piece):
        wire.feed(data[at : at + piece])
        held = max(held, wire.held_bytes - sum(map(len, wire.frames)))

    first, second = wire.take(10, 1 << 20)
    assert held <= 600
    assert len(first) < 100
    assert second == frames.row(1)


def test_frames_are_taken_by_number_and_by_size() -> None:
    """What is taken at once is bounded; nothing is left out."""
    wire = reader()
    rows = [frames.row(number) for number in range(10)]
    wire.feed(sent(*rows))

    assert wire.frames_bytes == sum(map(len, rows))
    assert [wire.take(3, 1 << 20), wire.take(10, 1), wire.take(10, 1 << 20)] == [rows[:3], rows[3:4], rows[4:]]
    assert (wire.frames_bytes, wire.take(1, 1)) == (0, [])


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=5))
def test_any_bytes_are_messages_or_an_error(data: bytes, sizes: list[int]) -> None:
    """Another program at the port, or a broken proxy, is recognised."""
    with suppress(InvalidMessage):
        fed(reader(), data, sizes)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"d\0\0\0\3", b"Z\0\0\0\0"])
def test_what_no_server_sends_is_an_error(data: bytes) -> None:
    """A kind that does not exist, and a size that is less than that of the size itself."""
    with pytest.raises(InvalidMessage):
        reader().feed(data)


def test_answers_to_queries_are_read() -> None:
    """Names and values as bytes; a size of -1 is NULL."""
    columns = struct.pack(">H", 2) + b"".join(name + b"\0" + bytes(18) for name in (b"a", b"b"))
    assert column_names(columns) == [b"a", b"b"]
    assert list(column_values(struct.pack(">Hi2si", 2, 2, b"xy", -1))) == [b"xy", None]
    assert list(column_values(struct.pack(">Hi", 1, 0))) == [b""]
