"""Rounds serialized by `relay.rpc.wire`, compared with the code that protobuf generates."""

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Final

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from relay.rpc.answer_forms import JSON, PROTO
from relay.rpc.wire import batch_entry, batch_json, round_bytes, round_json, stored_entries, stored_json, varint
from roundlog.entry import LogEntry
from rounds import InvalidRound, Round
from rounds import datastream_pb2 as pb
from rounds.subjects import corrections_of
from tests.resume.log_writer import name_of

FORMS: Final = (PROTO, JSON)
_SLUGS: Final = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,30}\Z")
_FRACTIONS: Final = st.one_of(st.just(""), st.from_regex(r"\A\.[0-9]{1,9}\Z"))
_EXTRAS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    """Any valid round, or correction of one."""
    revision = draw(st.sampled_from([1, 1, 2, 200, 2**31 - 1]))
    moment = draw(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
    return Round(
        round_id=draw(st.integers(0, 2**63 - 1)),
        game_slug=draw(_SLUGS),
        game_type=draw(_SLUGS),
        finished_at=moment.replace(microsecond=0).isoformat() + draw(_FRACTIONS) + "Z",
        extras="{" + draw(_EXTRAS) + "}",
        timestamp=draw(st.integers(0, 2**63 - 1)),
        revision=revision,
        voided=revision > 1 and draw(st.booleans()),
    )


def generated(round_: Round, cursor: str) -> pb.Round:
    """The same round in generated code."""
    whole, _, fraction = round_.finished_at[:-1].partition(".")
    since = datetime.fromisoformat(whole).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    fields = {name: getattr(round_, name) for name in round_.__struct_fields__}
    return pb.Round(
        **fields | {"revision": 0 if round_.revision == 1 else round_.revision},
        cursor=cursor,
        finished_time=Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=int(fraction.ljust(9, "0"))),
    )


@given(rounds(), st.from_regex(r"\A[a-z0-9]{1,16}-[1-9][0-9]{0,19}\Z"))
def test_any_round_is_serialized_as_generated_code_does(round_: Round, cursor: str) -> None:
    """Byte for byte, for all values: zeros are omitted, times before 1970 are negative."""
    assert round_bytes(round_, cursor) == generated(round_, cursor).SerializeToString(deterministic=True)


@given(st.lists(rounds(), max_size=5))
def test_batch_is_a_sequence_of_entries(batch: list[Round]) -> None:
    """Joined entries are a message of several rounds."""
    whole = pb.RoundBatch(rounds=[generated(round_, "k3f9a2-1") for round_ in batch])

    assert pb.RoundBatch.FromString(b"".join(batch_entry(round_, "k3f9a2-1") for round_ in batch)) == whole
    assert json_format.Parse(batch_json([round_json(round_, "k3f9a2-1") for round_ in batch]), pb.RoundBatch()) == whole


def expect_same(data: bytes, epoch: str = "k3f9a2", sequence: int = 1042, *, name: str = "crash") -> None:
    """Expect the same bytes, or the same error, of both functions; also the second time, from the caches."""
    entry = LogEntry(sequence, name, data)
    for write, long_way in ((stored_entries, batch_entry), (stored_json, round_json)):
        try:
            expected = long_way(Round.parse_stored(data, name), f"{epoch}-{sequence}")
        except InvalidRound as error:
            for _ in range(2):
                with pytest.raises(InvalidRound, match=f"^{re.escape(str(error))}$"):
                    write(epoch, [entry])
        else:
            assert write(epoch, [entry, entry]) == [expected, expected]


@given(rounds(), st.from_regex(r"\A[a-z0-9]{1,16}\Z"), st.integers(1, 2**64 - 1))
def test_any_stored_round_is_written_as_if_parsed(round_: Round, epoch: str, sequence: int) -> None:
    """The fast path and the general one give the same bytes."""
    expect_same(round_.to_json(), epoch, sequence, name=name_of(round_))
    expect_same(round_.to_json(), epoch, sequence, name="crash")
    expect_same(round_.to_json(), epoch, sequence, name=corrections_of("crash"))


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"game_slug": "Crash"},
        {"game_type": ""},
        {"extras": "[]"},
        {"extras": "{"},
        {"extras": '{"a":"\ud800"}'},
        {"extras": f"{{{' ' * 200}}}"},
        {"extras": f'{{"a":"{chr(0x1F600) * 120}"}}'},
        {"finished_at": "2026-01-18T10:00:30.5Z"},
        {"finished_at": "1969-01-18T10:00:30Z"},
        {"finished_at": "3100-01-18T10:00:30Z"},
        {"finished_at": "2026-02-30T10:00:30Z"},
        {"finished_at": "2026-01-18T10:00:60Z"},
        {"finished_at": "2026-01-18T10:00:30"},
        {"finished_at": ""},
        {"round_id": 0},
        {"round_id": (1 << 14) - 1},
        {"round_id": -1},
        {"round_id": 1 << 63},
        {"round_id": "1"},
        {"timestamp": (1 << 14) - 1},
        {"timestamp": None},
        {"revision": 2},
        {"revision": 0},
        {"voided": True},
        {"voided": False},
    ],
    ids=str,
)
def test_unusual_stored_round_is_written_or_refused_as_if_parsed(other: dict[str, object]) -> None:
    """Each is unusual in one field."""
    usual = {
        "round_id": 1 << 14,
        "game_slug": "crash",
        "game_type": "multiplier",
        "finished_at": "2026-01-18T10:00:30Z",
        "extras": '{"point":"2.50"}',
        "timestamp": 1768730430000,
    }
    for name in ("crash", corrections_of("crash"), corrections_of("dice")):
        expect_same(json.dumps(usual).encode(), name=name)
        expect_same(json.dumps(usual | other).encode(), name=name)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"round_id":1', b"[" * 100_000])
def test_entry_that_is_no_round_is_refused(data: bytes) -> None:
    """Other programs may publish to the subject of a round."""
    expect_same(data)


@given(rounds())
def test_any_round_is_the_json_of_generated_code(round_: Round) -> None:
    """Member by member: text for 64-bit numbers, no zeros, a time with 0, 3, 6 or 9 digits."""
    made = json_format.MessageToJson(generated(round_, "k3f9a2-1"), preserving_proto_field_name=True)

    assert json.loads(round_json(round_, "k3f9a2-1")) == json.loads(made)


@given(st.lists(rounds(), max_size=3), st.sampled_from(["", "k3f9a2-1"]), st.booleans())
def test_any_page_is_that_of_generated_code(page: list[Round], next_before: str, complete: bool) -> None:
    """As protobuf and as its JSON, which omits members with default values."""
    made = pb.GetHistoryResponse(
        rounds=[generated(round_, "k3f9a2-1") for round_ in page], next_before=next_before, complete=complete
    )

    written = [form.page([form.round(round_, "k3f9a2-1") for round_ in page], next_before, complete) for form in FORMS]

    assert written[0] == made.SerializeToString()
    assert json.loads(written[1]) == json.loads(json_format.MessageToJson(made, preserving_proto_field_name=True))


@given(st.integers(0, 2**64 - 1))
def test_number_of_any_size_is_read_back(number: int) -> None:
    """A varint holds 64 bits."""
    message = pb.Start.FromString(b"\x18" + varint(number & 0xFFFFFFFF))

    assert message.last == number & 0xFFFFFFFF
    assert len(varint(number)) == max(1, -(-number.bit_length() // 7))


def test_nanoseconds_are_kept() -> None:
    """The timestamp equals the text."""
    round_ = SimpleNamespace(
        round_id=1,
        game_slug="crash",
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30.123456789Z",
        extras="{}",
        timestamp=1,
        revision=1,
    )

    message = pb.Round.FromString(round_bytes(round_, "k3f9a2-1"))  # type: ignore[arg-type]

    assert (message.finished_time.seconds, message.finished_time.nanos) == (1768730430, 123456789)
