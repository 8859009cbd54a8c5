"""Rounds that are written without items: the same bytes, and the same faults, as those that have one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.http2 import DataBatch
from relay.live.encode import Form, SseBlock, WebSocketDeflate, WebSocketText
from relay.live.item import Item
from relay.live.stored import written
from relay.rpc.wire import ProtobufRound
from roundlog.entry import LogEntry
from rounds import InvalidRound, Round
from rounds.round import read_stored

FORMS: Sequence[Form] = (
    WebSocketText(),
    SseBlock(chunked=True),
    SseBlock(chunked=False),
    WebSocketDeflate(15),
    ProtobufRound(),
)
GOOD = (
    b'{"round_id":1,"game_slug":"crash","game_type":"multiplier","finished_at":"2026-01-18T10:00:30Z",'
    b'"extras":"{\\"point\\":\\"2.50\\"}","timestamp":1737194400000}'
)
LONG = b'{\\"point\\":\\"2.50\\",\\"note\\":\\"%b\\"}'
UNUSUAL = {
    "large id": GOOD.replace(b'"round_id":1,', b'"round_id":9007199254740993,'),
    "another order": b'{"timestamp":5,"extras":"{}","finished_at":"2026-01-18T10:00:30.5Z","game_type":"x",'
    b'"game_slug":"crash","round_id":0,"more":[1]}',
    "spaces": GOOD.replace(b":", b": ").replace(b"10: 00: 30", b"10:00:30").replace(b'"point\\": ', b'"point\\":'),
    "fraction": GOOD.replace(b"30Z", b"30.123456789Z"),
    "long extras": GOOD.replace(b'{\\"point\\":\\"2.50\\"}', LONG % (b"x" * 2000)),
    "larger than 64 KB": GOOD.replace(b'{\\"point\\":\\"2.50\\"}', LONG % (b"x" * 70_000)),
    "another game": GOOD.replace(b"crash", b"dice"),
    "not ASCII": GOOD.replace(b"2.50", "zwölf ☃".encode()),
}
BAD = {
    "not JSON": b"\xff{",
    "a correction among rounds": GOOD[:-1] + b',"revision":2}',
    "voided": GOOD[:-1] + b',"voided":true}',
    "no time": GOOD.replace(b"10:00:30Z", b"10:00:61Z"),
    "no minute": GOOD.replace(b"10:00:30Z", b"25:00:30Z"),
    "extras": GOOD.replace(b'"{\\"point', b'"[{\\"point'),
    "type": GOOD.replace(b"multiplier", b"Multiplier"),
    "too deep": b'{"more":' + b"[" * 5000,
    "empty": b"",
}


def plain(data: object) -> object:
    """What one write puts on a connection."""
    return data.payload if isinstance(data, DataBatch) else data


def by_items(form: Form, entries: Sequence[LogEntry]) -> object:
    items = [Item("k3f9a2", entry) for entry in entries]
    assert all(item.valid for item in items)
    return plain(form.join([item.rendered(form) for item in items]))


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(1, 2000), st.integers(2**64 - 3, 2**64 - 1)),
            st.sampled_from([GOOD, *UNUSUAL.values()]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(FORMS),
)
def test_same_bytes_as_of_items(stored: list[tuple[int, bytes]], form: Form) -> None:
    """Whatever rounds look like in the log, and whatever their sequences are."""
    entries = [LogEntry(sequence, "crash", data) for sequence, data in stored]
    found, expected = written(form, "k3f9a2", entries), by_items(form, entries)

    assert plain(found.data) == expected
    assert (found.rounds, found.size) == (len(entries), len(found.data))


def test_corrections_are_written_too() -> None:
    """They stand in the log under a name of their own."""
    entries = [
        LogEntry(7, "crash~corrections", GOOD[:-1] + b',"revision":2,"voided":true}'),
        LogEntry(8, "crash", GOOD),
    ]

    for form in FORMS:
        assert plain(written(form, "k3f9a2", entries).data) == by_items(form, entries)


@pytest.mark.parametrize("kind", BAD)
def test_invalid_round_is_refused_as_when_it_is_parsed_alone(kind: str) -> None:
    """With the same sentence; nothing is written of the others, which are then written one by one."""
    entries = [LogEntry(1, "crash", GOOD), LogEntry(2, "crash", BAD[kind])]
    with pytest.raises(InvalidRound) as alone:
        Round.parse_stored(BAD[kind], "crash")
    with pytest.raises(InvalidRound) as together:
        read_stored(entries)
    for form in FORMS:
        with pytest.raises(InvalidRound):
            written(form, "k3f9a2", entries)

    assert str(together.value) == str(alone.value)
