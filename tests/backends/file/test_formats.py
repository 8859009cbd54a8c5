"""A line of a recording is a round, is ignored, or is refused with one sentence."""

import csv
import io
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.file.recording.formats import FIELDS, FORMATS, CsvLines, InvalidHeader, JsonLines, format_of, parser_for
from rounds import InvalidRound, Round
from tests.backends.file.replaying import round_at

HEADER = ",".join(FIELDS).encode()


def csv_line(round_: Round, fields: tuple[str, ...] = FIELDS) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([getattr(round_, field) for field in fields])
    return out.getvalue().encode().removesuffix(b"\n")  # keeps the \r of RFC 4180


@pytest.mark.parametrize(
    ("name", "format_"),
    [(f"monday.{ending}", format_) for ending, format_ in FORMATS.items()] + [("A.JSONL.GZ", FORMATS["jsonl.gz"])],
)
def test_format_of_a_name_with_a_known_ending(name: str, format_: object) -> None:
    """The case of the ending does not matter."""
    assert format_of(name) == format_


@pytest.mark.parametrize("name", ["jsonl", "monday.json", "monday.jsonl.bz2", "monday.gz", "notes.txt"])
def test_format_of_a_name_with_another_ending(name: str) -> None:
    """The format is not guessed."""
    assert format_of(name) is None


def test_csv_columns_may_come_in_any_order_with_others_between() -> None:
    """The header gives the column of each field; other columns are ignored."""
    parser = CsvLines()
    fields = (*reversed(FIELDS), "note")
    round_ = round_at(1)
    values = csv_line(round_, FIELDS[::-1]).rstrip(b"\r") + b",hello"

    assert parser.parse(",".join(fields).encode() + b"\r") is None
    assert parser.parse(values) == round_


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("blank", [b"", b"\r", b"  \t", b"\xef\xbb\xbf"])
def test_blank_line_is_ignored(kind: str, blank: bytes) -> None:
    """Blank lines with any line end are neither rounds nor errors."""
    parser = parser_for(FORMATS[kind])
    if kind == "csv":
        parser.parse(HEADER)
        blank = blank.removeprefix(b"\xef\xbb\xbf")

    assert parser.parse(blank) is None


def test_byte_order_mark_and_crlf_are_ignored() -> None:
    """Files from other systems give the same rounds."""
    round_ = round_at(1)

    assert JsonLines().parse(b"\xef\xbb\xbf" + round_.to_json() + b"\r") == round_
    parser = CsvLines()
    parser.parse(b"\xef\xbb\xbf" + HEADER + b"\r")
    assert parser.parse(csv_line(round_)) == round_


def test_header_at_the_seam_of_concatenated_files_holds_for_what_follows() -> None:
    """It may have another order, a byte order mark and CRLF. A resumed replay reads it too."""
    first, second, third = round_at(1), round_at(2), round_at(3)
    parser = CsvLines()
    parser.parse(HEADER)
    assert parser.parse(csv_line(first)) == first
    assert parser.parse(HEADER) is None
    assert parser.parse(b"\xef\xbb\xbf" + csv_line(second)) == second
    other = b"\xef\xbb\xbf" + b",".join([b"more", *reversed(HEADER.split(b","))]) + b"\r"
    assert parser.parse(other) is None
    with pytest.raises(InvalidRound, match="6 values where the header names 7"):
        parser.parse(csv_line(third))
    parser.skip(HEADER)
    assert parser.parse(csv_line(third)) == third
    with pytest.raises(InvalidHeader, match="names no extras, timestamp"):
        parser.parse(b",".join(HEADER.split(b",")[:4]))


def test_leap_second_is_the_next_second() -> None:
    """Clients cannot read ``:60``, and a real round must not be refused for it."""
    leap, text = round_at(1), "2016-12-31T23:59:60.25Z"
    line = leap.to_json().replace(leap.finished_at.encode(), text.encode())
    parser = CsvLines()
    parser.parse(HEADER)
    for found in (
        JsonLines().parse(line),
        JsonLines().parse(b"\xef\xbb\xbf" + line),
        parser.parse(csv_line(leap).replace(leap.finished_at.encode(), text.encode())),
    ):
        assert found is not None
        assert found.finished_at == "2017-01-01T00:00:00.25Z"
    with pytest.raises(InvalidRound, match="finished_at"):
        JsonLines().parse(line.replace(b":60.25Z", b":61Z"))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"round_id,game_slug", "names no game_type, finished_at, extras, timestamp"),
        (HEADER + b",extras", "names extras more than once"),
        (b'"round_id', "not CSV"),
        (b"\xff\xfer\x00", "UTF-16"),
        (b"round_id\xff", "not UTF-8 at byte 8"),
    ],
)
def test_header_that_does_not_name_the_fields_is_refused(header: bytes, reason: str) -> None:
    """The sentence names the missing or repeated fields, or says why the header cannot be read."""
    with pytest.raises(InvalidHeader, match=reason):
        CsvLines().parse(header)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,crash", "2 values where the header names 6"),
        (b"x,crash,multiplier,2026-01-18T10:00:30Z,{},1", "round_id 'x' is not a whole number"),
        (b"-1,crash,multiplier,2026-01-18T10:00:30Z,{},1", "round_id '-1' is not a whole number"),
        (b"1_0,crash,multiplier,2026-01-18T10:00:30Z,{},1", "round_id '1_0' is not a whole number"),
        ("\u0661,crash,multiplier,2026-01-18T10:00:30Z,{},1".encode(), "is not a whole number"),
        (b"9" * 5000 + b",crash,multiplier,2026-01-18T10:00:30Z,{},1", "is not a whole number"),
        (b"9223372036854775808,crash,multiplier,2026-01-18T10:00:30Z,{},1", "round_id"),
        (b"1,crash,multiplier,2026-01-18T10:00:30Z,{},", "timestamp '' is not a whole number"),
        (b"1,cr.ash,multiplier,2026-01-18T10:00:30Z,{},1", "game_slug"),
        (b'1,crash,multiplier,2026-01-18T10:00:30Z,"{},1', "a record is one line"),
        (b"1,cr\xffash,multiplier,2026-01-18T10:00:30Z,{},1", "not UTF-8 at byte 4"),
    ],
)
def test_csv_record_that_is_not_a_round_is_refused_with_the_field(line: bytes, reason: str) -> None:
    """The sentence names the field, or says what is wrong with the line."""
    parser = CsvLines()
    parser.parse(HEADER)

    with pytest.raises(InvalidRound, match=reason):
        parser.parse(line)


def test_utf_16_is_refused_as_utf_16() -> None:
    """The sentence names the wrong encoding instead of calling the line bad JSON."""
    with pytest.raises(InvalidRound, match="UTF-16; save it as UTF-8"):
        JsonLines().parse("{}".encode("utf-16"))


@given(st.lists(st.binary(max_size=120), max_size=5), st.sampled_from(["jsonl", "csv"]))
def test_any_line_is_a_round_or_ignored_or_refused(lines: list[bytes], kind: str) -> None:
    """No bytes raise an error other than `InvalidRound`."""
    parser = parser_for(FORMATS[kind])
    if kind == "csv":
        parser.parse(HEADER)
    for line in lines:
        with suppress(InvalidRound):
            assert parser.parse(line) is None or line


@given(st.dictionaries(st.text(), st.text()), st.integers(0, 2**63 - 1))
def test_round_is_the_same_from_csv_and_from_json(extras: dict[str, str], number: int) -> None:
    """Extras are JSON text in both formats, with any quotes and commas."""
    round_ = Round.make(
        round_id=number,
        game_slug="dice",
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras=json.dumps(extras),
        timestamp=number,
    )
    parser = CsvLines()
    parser.parse(HEADER)

    assert parser.parse(csv_line(round_)) == JsonLines().parse(round_.to_json()) == round_
