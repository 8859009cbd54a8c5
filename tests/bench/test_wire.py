"""The benchmarks' own reading of the protocols."""

import itertools

import pytest

from bench._rounds import endless
from bench.fanout.wire import GRPC, WIRES, BadWire, Rest, Taken, Wire
from relay.live.encode import SSE_COMMENT, chunk
from relay.rpc.wire import round_bytes
from rounds.round import with_cursor

_ROUNDS = list(itertools.islice(endless(), 3))


def messages_of(wire: Wire) -> list[bytes]:
    """Three rounds as a protocol has them, with cursors 1 to 3."""
    found = []
    for sequence, round_ in enumerate(_ROUNDS, 1):
        cursor = f"abc-{sequence}"
        data = with_cursor(round_.to_json(), cursor)
        block = b"id: %b\ndata: %b" % (cursor.encode(), data)
        found.append({"WebSocket": data, "SSE": block, "gRPC": round_bytes(round_, cursor)}[wire.name])
    return found


@pytest.mark.parametrize("wire", [*WIRES, GRPC], ids=lambda wire: wire.name)
def test_bytes_cut_anywhere_are_the_same_messages(wire: Wire) -> None:
    """A read may end within a frame, a chunk or a message; nothing is lost, doubled or taken apart."""
    messages = messages_of(wire)
    data = wire.framed(messages)
    for cut in range(len(data) + 1):
        before = wire.take(Rest(), data[:cut])
        after = wire.take(before.rest, data[cut:])
        assert before.messages + after.messages == messages
        assert after.rest == Rest()
    assert [wire.round_of(message)["round_id"] for message in messages] == [1, 2, 3]


def test_event_blocks_in_one_chunk_are_messages_of_their_own() -> None:
    """A relay may put any number of blocks into a chunk, and a place before them."""
    wire = WIRES[1]
    messages = messages_of(wire)
    joined = chunk(b"id: abc-0\n") + chunk(b"\n\n".join(messages) + b"\n\n") + chunk(SSE_COMMENT)

    assert wire.take(Rest(), joined) == Taken(messages, 1, b"", Rest())


def test_event_with_another_field_is_refused() -> None:
    """Links of the benchmark use no cursor, so rounds are all that they may get."""
    with pytest.raises(BadWire, match="not one block"):
        WIRES[1].take(Rest(), chunk(b"event: gap\ndata: {}\n\n"))
