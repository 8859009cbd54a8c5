"""The formats of recordings: JSONL and CSV parsers, and the compressions. Pure: lines in, rounds out."""

import csv
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import msgspec

from rounds import InvalidRound, Round
from rounds.round import read_unchecked
from rounds.times import after_leap_second

FIELDS: Final = ("round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp")

_FIELD_BYTES: Final = tuple(name.encode() for name in FIELDS)
_HEADER_FIELDS: Final = 3
_LONGEST_FIELD: Final = 64 << 20
"""The maximum of the option ``max_line_bytes``: `LineCutter` bounds lines before they are parsed."""
_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


class Compression(StrEnum):
    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"


class Format(NamedTuple):
    """The encoding of a recording."""

    is_csv: bool
    compression: Compression


FORMATS: Final[Mapping[str, Format]] = {
    f"{kind}{compression}": Format(kind == "csv", compression)
    for compression in Compression
    for kind in ("jsonl", "csv")
}


def format_of(name: str) -> Format | None:
    """Return the format that the ending of a file name stands for; None for other endings."""
    for ending, found in FORMATS.items():
        if name.lower().endswith(f".{ending}"):
            return found
    return None


class InvalidHeader(ValueError):
    """The header of a CSV file does not name the fields. Nothing in the file can be read."""


class Parser(Protocol):
    """Parses the lines of one file, in order."""

    def parse(self, line: bytes) -> Round | None:
        """Parse one line; None for a blank line or a header.

        Raises:
            InvalidRound: The line is not a round; the text is one sentence.
            InvalidHeader: The rest of the file cannot be read.
        """
        ...

    def skip(self, line: bytes) -> None:
        """Skip a line that an earlier run has played."""
        ...


def parser_for(format_: Format) -> Parser:
    """Make a parser for the lines of one file."""
    return CsvLines() if format_.is_csv else JsonLines()


class JsonLines:
    """One JSON object per line."""

    def parse(self, line: bytes) -> Round | None:
        try:
            return Round.parse(line)
        except InvalidRound:  # blank lines and byte order marks are checked here, since nearly all lines are rounds
            bare = line.removeprefix(_BOM)
            if not bare or bare.isspace():
                return None
            _refuse_utf16(line)
            if (found := _with_leap_second(bare)) is not None:
                return found
            if len(bare) == len(line):
                raise
        return Round.parse(bare)

    def skip(self, line: bytes) -> None:
        """Do nothing: no line depends on another."""


class CsvLines:
    """Comma-separated values (RFC 4180), one record per line, after a header that names the fields in any order.

    Further headers, where files were concatenated, hold for the lines after them.
    """

    def __init__(self) -> None:
        # The limit is global to the process. Its default, 128 KiB, is less than a line may have.
        csv.field_size_limit(_LONGEST_FIELD)
        self._columns: list[int] = []
        self._width = 0

    def parse(self, line: bytes) -> Round | None:
        if not line or line.isspace():
            return None
        if not self._columns:
            self._read_header(line)
            return None
        try:
            return self._round(line)
        except InvalidRound:
            bare = line.removeprefix(_BOM)
            if _is_header(bare):
                self._read_header(bare)
                return None
            if len(bare) == len(line):
                raise
        return self._round(bare)

    def _round(self, line: bytes) -> Round:
        record = _record(line)
        if len(record) != self._width:
            raise InvalidRound(f"{len(record)} values where the header names {self._width}")
        round_id, slug, type_, finished_at, extras, timestamp = (record[column] for column in self._columns)
        return Round.make(
            round_id=_integer("round_id", round_id),
            game_slug=slug,
            game_type=type_,
            finished_at=finished_at,
            extras=extras,
            timestamp=_integer("timestamp", timestamp),
        )

    def skip(self, line: bytes) -> None:
        """Parse headers; ignore any other line."""
        if not self._columns:
            self.parse(line)
        elif _is_header(bare := line.removeprefix(_BOM)):
            self._read_header(bare)

    def _read_header(self, line: bytes) -> None:
        try:
            _refuse_utf16(line)
            names = [name.strip() for name in _record(line.removeprefix(_BOM))]
        except InvalidRound as error:
            raise InvalidHeader(f"the header cannot be read: {error}") from error
        missing = [name for name in FIELDS if name not in names]
        if missing:
            raise InvalidHeader(f"the header names no {', '.join(missing)}; it must name {', '.join(FIELDS)}")
        twice = [name for name in FIELDS if names.count(name) > 1]
        if twice:
            raise InvalidHeader(f"the header names {', '.join(twice)} more than once")
        self._columns = [names.index(name) for name in FIELDS]
        self._width = len(names)


def _is_header(line: bytes) -> bool:
    """Whether a line is a header: half of the fields are named. No round has two of these names as values."""
    if sum(name in line for name in _FIELD_BYTES) < _HEADER_FIELDS:
        return False
    try:
        names = [name.strip() for name in _record(line)]
    except InvalidRound:
        return False
    return sum(name in names for name in FIELDS) >= _HEADER_FIELDS


def _with_leap_second(line: bytes) -> Round | None:
    """Parse a round that ended in a leap second; None for any other line."""
    if b":60" not in line:
        return None
    try:
        found = read_unchecked(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    fields = {name: getattr(found, name) for name in FIELDS}
    return Round.make(**fields) if after_leap_second(found.finished_at) else None


def _record(line: bytes) -> list[str]:
    try:
        text = line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InvalidRound(f"not UTF-8 at byte {error.start}") from error
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidRound(f"not CSV: {error}; a record is one line, and quotes in a value are doubled") from error
    except StopIteration:
        return []


def _integer(name: str, text: str) -> int:
    # int() alone accepts " 1", "1_000" and digits of other scripts, and raises another error for over 4300 digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise InvalidRound(f"{name} {text[:40]!r} is not a whole number from 0 to 2^63-1")
    return int(text)


def _refuse_utf16(line: bytes) -> None:
    if line.startswith(_UTF16):
        raise InvalidRound("the file is UTF-16; save it as UTF-8")
