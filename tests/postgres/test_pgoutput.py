"""The decoder of pgoutput: real messages, and arbitrary bytes."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.postgres.replication.protocol.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    InvalidMessage,
    LogicalMessage,
    Other,
    Relation,
    Truncate,
    Update,
    decode,
)
from backends.postgres.replication.protocol.wal import (
    DATA_START,
    Keepalive,
    format_lsn,
    parse_keepalive,
    parse_lsn,
    status_update,
)
from tests.postgres import wal_frames as frames


def test_messages_of_a_transaction_are_read() -> None:
    """Each kind that the capture uses, at its position in a frame."""
    assert decode(frames.begin(0x1234, 1000), DATA_START) == Begin(0x1234, 1_000_000, 7)
    assert decode(frames.relation(), DATA_START) == Relation(
        frames.TABLE, "public", "rounds", frames.COLUMNS, (25,) * 5, "d"
    )
    assert decode(frames.insert("1", None, ""), DATA_START) == Insert(frames.TABLE, [b"1", None, b""])
    assert decode(frames.commit(8, 16), DATA_START)[:2] == (8, 16)
    assert isinstance(decode(frames.commit(8, 16), DATA_START), Commit)
    assert decode(frames.message(99, "p", b"c"), DATA_START) == LogicalMessage(False, 99, "p", memoryview(b"c"), 1)


def test_changes_of_rows_are_read() -> None:
    """With the replica identity FULL the old row comes whole; the columns of a key alone are no old row."""
    assert decode(frames.update(("1", None), ("1", "x")), DATA_START) == Update(
        frames.TABLE, [b"1", None], [b"1", b"x"]
    )
    assert decode(frames.update(("1", None), ("2", "x"), kind=b"K"), DATA_START) == Update(
        frames.TABLE, None, [b"2", b"x"]
    )
    assert decode(frames.update(None, ("2", "x")), DATA_START) == Update(frames.TABLE, None, [b"2", b"x"])
    assert decode(frames.delete(("1", "x")), DATA_START) == Delete(frames.TABLE, [b"1", b"x"])
    assert decode(frames.delete(("1", None), kind=b"K"), DATA_START) == Delete(frames.TABLE, None)
    assert decode(frames.truncate(7, 8), DATA_START) == Truncate((7, 8))


def test_value_that_was_not_changed_is_taken_from_the_old_row() -> None:
    """A value that is stored out of line is sent only with the old row, if an update does not change it."""
    update = decode(frames.update(("1", "large", None), ("2", UNCHANGED, UNCHANGED)), DATA_START)
    assert update == Update(frames.TABLE, [b"1", b"large", None], [b"2", b"large", None])

    alone = decode(frames.update(None, ("2", UNCHANGED)), DATA_START)
    assert isinstance(alone, Update)
    assert alone.values[1] is UNCHANGED


def test_content_of_a_logical_message_is_not_copied() -> None:
    """It may be the message of another application, of any size."""
    frame = frames.message(99, "p", b"content")
    message = decode(frame, DATA_START)

    assert isinstance(message, LogicalMessage)
    assert message.content.obj is frame


@pytest.mark.parametrize("kind", "YO")
def test_messages_of_other_kinds_are_ignored(kind: str) -> None:
    """Types and origins make no rounds, whatever they contain."""
    assert decode(kind.encode() + b"\0\1\2") == Other(kind)


def test_huge_value_is_read_whole() -> None:
    """A value of megabytes is read as one."""
    document = b'{"a":"' + b"x" * (4 << 20) + b'"}'

    assert decode(frames.insert("1", document), DATA_START) == Insert(frames.TABLE, [b"1", document])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"B\0", "has 2 bytes, not 21"),
        (b"Z", "unknown kind 'Z'"),
        (b"I\0\0\0\1O\0\1", "without a new row"),
        (b"I\0\0\0\1N\0\1u", "value of kind 'u'"),
        (b"I\0\0\0\1N\0\1t\xff\xff\xff\xffab", "ends at"),
        (b"I\0\0\0\1N\0\0rest", "ends at 8 of 12"),
        (b"U\0\0\0\1X\0\0", "without a new row"),
        (b"U\0\0\0\1O\0\0X\0\0", "without a new row"),
        (b"U\0\0\0\1N\0\1b\0\0\0\0", "value of kind 'b'"),
        (b"D\0\0\0\1N\0\0", "without an old row"),
        (b"D\0\0\0\1O\0\1t\0\0\0\7ab", "ends at"),
        (b"T\0\0\0\2\0\0\0\0\1", "has 10 bytes, not 14"),
        (b"R\0\0\0\1public", "unterminated"),
    ],
)
def test_broken_message_is_named(data: bytes, reason: str) -> None:
    """The error says what is wrong; no other exception is raised."""
    with pytest.raises(InvalidMessage, match=reason):
        decode(data)


WHOLE = [
    frames.begin(1),
    frames.commit(1),
    frames.relation(),
    frames.row(1),
    frames.insert(None, "x"),
    frames.message(5, content=b"abc"),
    frames.update(("1", None), ("1", UNCHANGED)),
    frames.delete(("1", "x")),
    frames.truncate(7, 8),
]


@given(st.sampled_from(b"BCRIMUDTYO").map(lambda kind: bytes([kind])), st.binary(max_size=80))
@example(b"R", b"\0" * 11 + b"\xff\xff")
def test_any_bytes_are_decoded_or_refused(kind: bytes, rest: bytes) -> None:
    """Arbitrary bytes raise only `InvalidMessage`."""
    with suppress(InvalidMessage):
        decode(kind + rest)


@given(st.sampled_from(WHOLE), st.data())
def test_damaged_message_is_decoded_or_refused(whole: bytes, choose: st.DataObject) -> None:
    """A real message with a byte changed, cut or added."""
    at = choose.draw(st.integers(DATA_START, len(whole)))
    damaged = choose.draw(
        st.sampled_from([whole[:at], whole[:at] + b"\xff" + whole[at + 1 :], whole[:at] + b"\0" + whole[at:]])
    )
    with suppress(InvalidMessage):
        decode(damaged, DATA_START)


@given(st.lists(st.none() | st.binary(max_size=40), max_size=20), st.integers(0, 2**32 - 1))
def test_values_come_back_as_they_were_sent(values: list[bytes | None], oid: int) -> None:
    """Any values in any number of columns, also none."""
    assert decode(frames.insert(*values, oid=oid), DATA_START) == Insert(oid, values)


@given(st.lists(st.tuples(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20)), max_size=9))
def test_both_rows_of_an_update_come_back_as_they_were_sent(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    """Any values in any number of columns."""
    old, new = [before for before, _ in pairs], [after for _, after in pairs]

    assert decode(frames.update(old, new), DATA_START) == Update(frames.TABLE, old, new)
    assert decode(frames.delete(old), DATA_START) == Delete(frames.TABLE, old)


# --- frames and numbers ----------------------------------------------------------------------------------------------


def test_keepalive_is_read() -> None:
    assert parse_keepalive(frames.keepalive(77, reply=True)) == Keepalive(77, True)
    with pytest.raises(InvalidMessage):
        parse_keepalive(b"k123")


def test_status_has_the_layout_of_the_manual() -> None:
    """Received is written, confirmed is flushed and applied; the clock counts from 2000."""
    status = status_update(received=1 << 40, confirmed=2, unix_us=946_684_800_000_003, want_reply=True)

    assert status == b"r" + b"".join(n.to_bytes(8, "big") for n in (1 << 40, 2, 2, 3)) + b"\1"


@given(st.integers(0, 2**64 - 1))
def test_lsn_is_read_back(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


def test_lsn_is_written_as_the_server_does() -> None:
    assert format_lsn(0x16_B374D848) == "16/B374D848"
    with pytest.raises(ValueError, match="not a log sequence number"):
        parse_lsn("16")
