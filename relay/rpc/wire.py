"""Rounds as serialized ``datastream.Round`` messages, made without message objects. Pure.

Owns the bytes of what is sent most: one round, and a batch of them, as protobuf and as protobuf's JSON. They are put
together by hand, in a fraction of the time that generated code takes; property tests hold both to the same result.
https://protobuf.dev/programming-guides/encoding/ and https://protobuf.dev/programming-guides/json/
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from relay.live.encode import Renderable
from roundlog.entry import LogEntry
from rounds import Round
from rounds.cursor import cursor_prefix, cursor_text
from rounds.round import extras_fault, read_unchecked
from rounds.subjects import is_slug
from rounds.times import SECONDS, is_utc_time, minute_s, nanos, unix_s

_UINT64: Final = 2**64 - 1
_SIX_BYTES: Final = 1 << 28
_SEVEN_BYTES: Final = 1 << 35
"""A timestamp takes six bytes from 1978 to the year 3058."""
_TWO_SEVENS: Final = 1 << 14
_SHORT: Final = 128
"""Characters of what is looked up rather than checked again, so that nothing large is remembered."""
_json: Final = msgspec.json.Encoder()
_KEPT: Final = 512
"""Lengths below this are looked up; those of times and cursors are all below 128."""


class Messages(NamedTuple):
    """Serialized messages that leave one after another, and their size together: counted once for all streams."""

    messages: Sequence[bytes]
    size: int


@dataclass(frozen=True, slots=True)
class ProtobufRound:
    """A serialized ``datastream.Round``. Made once per round, for all streams."""

    def render(self, item: Renderable) -> bytes:
        return round_bytes(item.round, item.cursor)

    def join(self, rendered: list[bytes]) -> Messages:
        return Messages(rendered, sum(map(len, rendered)))


def round_bytes(round_: Round, cursor: str) -> bytes:
    """Serialize a valid round; every field in the order of its number, as generated code has it."""
    number, moment, finished_at = round_.round_id, round_.timestamp, round_.finished_at
    text, extras, written = finished_at.encode(), round_.extras.encode(), cursor.encode()
    return b"".join(
        (
            b"\x08" + _number(number) if number else b"",
            _game(round_.game_slug, round_.game_type),
            _FINISHED_AT[len(text)],
            text,
            _EXTRAS[len(extras)] if len(extras) < _KEPT else b"\x2a" + varint(len(extras)),
            extras,
            b"\x30" + _number(moment) if moment else b"",
            _CURSOR[len(written)],
            written,
            _finished_time(finished_at),
        )
    )


def batch_entry(round_: Round, cursor: str) -> bytes:
    """Serialize a valid round as an element of ``RoundBatch.rounds``; a batch is such elements one after another."""
    data = round_bytes(round_, cursor)
    return (_ENTRY[len(data)] if len(data) < _KEPT else b"\x0a" + varint(len(data))) + data


def stored_entries(epoch: str, entries: Iterable[LogEntry]) -> list[bytes]:
    """Make ``batch_entry(Round.parse(data), cursor)`` of rounds as the log has them, at half the cost.

    What was found to be in order once (a game and its type, a minute, short extras) is looked up with its bytes, and
    nothing is called that need not be. A round that is unusual in any way goes the long way.

    Raises:
        InvalidRound: As `Round.parse`, for any of them.
    """
    made, seven, upper, prefix = [], _SEVEN, _upper, cursor_prefix(epoch).encode()
    for sequence, _, data in entries:
        try:
            round_ = read_unchecked(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            made.append(_entry_by_the_long_way(epoch, sequence, data))
            continue
        number, moment, text, extras = round_.round_id, round_.timestamp, round_.finished_at, round_.extras
        slug, type_ = round_.game_slug, round_.game_type
        game, time = len(slug) + len(type_) <= _SHORT and _checked_game(slug, type_), _finished_time(text)
        payload = len(extras) <= _SHORT and _checked_extras(extras)
        if not (game and time and payload) or number < _TWO_SEVENS or moment < _TWO_SEVENS:
            made.append(_entry_by_the_long_way(epoch, sequence, data))
            continue
        cursor = b"%b%d" % (prefix, sequence)
        entry = b"".join(
            (
                b"\x08",
                seven[number & 0x7F],
                seven[number >> 7 & 0x7F],
                upper(number >> 14),
                game,
                _FINISHED_AT[len(text)],
                text.encode(),
                payload,
                seven[moment & 0x7F],
                seven[moment >> 7 & 0x7F],
                upper(moment >> 14),
                _CURSOR[len(cursor)],
                cursor,
                time,
            )
        )
        made.append(_ENTRY[len(entry)] + entry)
    return made


def _entry_by_the_long_way(epoch: str, sequence: int, data: bytes) -> bytes:
    return batch_entry(Round.parse(data), cursor_text(epoch, sequence))


def stored_json(epoch: str, entries: Iterable[LogEntry]) -> list[bytes]:
    """Render rounds as the log has them as `round_json` does; raise as `Round.parse` does."""
    return [round_json(Round.parse(data), cursor_text(epoch, sequence)) for sequence, _, data in entries]


class _Json(msgspec.Struct, omit_defaults=True):
    """``datastream.Round`` in protobuf's JSON: 64-bit numbers are text, and what is zero is left out."""

    round_id: str = ""
    game_slug: str = ""
    game_type: str = ""
    finished_at: str = ""
    extras: str = ""
    timestamp: str = ""
    cursor: str = ""
    finished_time: str = ""


def round_json(round_: Round, cursor: str) -> bytes:
    """Render a valid round as protobuf's JSON does, with the field names of the contract."""
    moment = round_.finished_at
    if len(moment) > 20:
        nanos = moment[20:-1].ljust(9, "0")  # which is written with 0, 3, 6 or 9 digits
        while nanos.endswith("000"):
            nanos = nanos[:-3]
        moment = f"{moment[:19]}.{nanos}Z" if nanos else f"{moment[:19]}Z"
    return _json.encode(
        _Json(
            str(round_.round_id) if round_.round_id else "",
            round_.game_slug,
            round_.game_type,
            round_.finished_at,
            round_.extras,
            str(round_.timestamp) if round_.timestamp else "",
            cursor,
            moment,
        )
    )


def batch_json(rounds: Sequence[bytes]) -> bytes:
    """Make a ``RoundBatch`` of rounds as JSON."""
    return b'{"rounds":[%b]}' % b",".join(rounds)


def varint(number: int) -> bytes:
    """Write an unsigned number seven bits at a time, the lowest first."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def _number(number: int) -> bytes:
    """Write a number as `varint` does, sooner: ids and times of one log have most of their upper bits in common."""
    if number >= _TWO_SEVENS:
        return _SEVEN[number & 0x7F] + _SEVEN[number >> 7 & 0x7F] + _upper(number >> 14)
    return _SEVEN[number & 0x7F] + _LAST_SEVEN[number >> 7] if number > 0x7F else _LAST_SEVEN[number]


_LAST_SEVEN: Final = [bytes((bits,)) for bits in range(0x80)]
_SEVEN: Final = [bytes((0x80 | bits,)) for bits in range(0x80)]
_TIME: Final = [b"\x42\x06\x08" + lowest for lowest in _SEVEN]
_upper: Final = lru_cache(maxsize=4096)(varint)


@lru_cache(maxsize=1024)
def _game(slug: str, type_: str) -> bytes:
    first, second = slug.encode(), type_.encode()
    return b"".join((b"\x12", varint(len(first)), first, b"\x1a", varint(len(second)), second))


@lru_cache(maxsize=1024)
def _checked_game(slug: str, type_: str) -> bytes:
    """Serialize the fields of a game and its type; empty: they are no slugs."""
    return _game(slug, type_) if is_slug(slug) and is_slug(type_) else b""


@lru_cache(maxsize=4096)
def _checked_extras(extras: str) -> bytes:
    """Serialize the field of extras, and begin a timestamp; empty: they are none, or not short."""
    if extras_fault(extras) is not None or len(data := extras.encode()) > _SHORT:
        return b""
    return b"\x2a%b%b\x30" % (varint(len(data)), data)


def _finished_time(text: str) -> bytes:
    """Serialize the field ``finished_time``, a ``google.protobuf.Timestamp``; empty: `text` is no time of a round."""
    minute, second = minute_s(text[:17]), SECONDS.get(text[17:19])
    if minute is not None and second is not None and _SIX_BYTES <= (seconds := minute + second) < _SEVEN_BYTES:
        if text[19:] == "Z":
            return _TIME[seconds & 0x7F] + _SEVEN[seconds >> 7 & 0x7F] + _upper(seconds >> 14)
        if len(text) <= 30 and (beyond := _checked_fraction(text[19:])):
            size = _LAST_SEVEN[6 + len(beyond)]
            whole = (b"\x42", size, b"\x08", _SEVEN[seconds & 0x7F], _SEVEN[seconds >> 7 & 0x7F], _upper(seconds >> 14))
            return b"".join((*whole, beyond))
    return _timestamp(text) if is_utc_time(text) else b""


def _timestamp(text: str) -> bytes:
    """Serialize any time; those of the years around ours go a shorter way."""
    seconds, beyond = unix_s(text), nanos(text)
    moment = b"\x08" + _number(seconds & _UINT64) if seconds else b""  # before 1970: two's complement
    moment += b"\x10" + _number(beyond) if beyond else b""
    return b"\x42%c%b" % (len(moment), moment)


@lru_cache(maxsize=4096)
def _checked_fraction(text: str) -> bytes:
    """Serialize the nanoseconds of what a time ends with, such as ``.123Z``; empty: there are none, or it is no end."""
    whole = f"2026-01-18T10:00:30{text}"
    return b"\x10" + _number(beyond) if is_utc_time(whole) and (beyond := nanos(whole)) else b""


def _heads(tag: bytes, count: int = _KEPT) -> list[bytes]:
    """Tag and length of what has a length, by its length."""
    return [tag + varint(size) for size in range(count)]


_FINISHED_AT: Final = _heads(b"\x22", 128)
_EXTRAS: Final = _heads(b"\x2a")
_CURSOR: Final = _heads(b"\x3a", 128)
_ENTRY: Final = _heads(b"\x0a")
