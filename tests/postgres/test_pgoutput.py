"""The decoder of pgoutput: real messages, and arbitrary bytes."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.postgres.replication.protocol.pgoutput import (
    Begin,
    Commit,
    Insert,
    InvalidMessage,
    LogicalMessage,
    Other,
    Relation,
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
    assert decode(frames.relation(), DATA_START) == Relation(frames.TABLE, "public", "rounds", frames.COLUMNS)
    assert decode(frames.insert("1", None, ""), DATA_START) == Insert(frames.TABLE, [b"1", None, b""])
    assert decode(frames.commit(8, 16), DATA_START)[:2] == (8, 16)
    assert isinstance(decode(frames.commit(8, 16), DATA_START), Commit)
    assert decode(frames.message(99, "p", b"c"), DATA_START) == LogicalMessage(False, 99, "p", b"c")


@pytest.mark.parametrize("kind", "UDTYO")
def test_messages_of_other_kinds_are_ignored(kind: str) -> None:
    """Updates, deletes and truncations make no rounds, whatever they contain."""
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
        (b"R\0\0\0\1public", "unterminated"),
        (b"R\0\0\0\1\xff\0", "not UTF-8"),
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
