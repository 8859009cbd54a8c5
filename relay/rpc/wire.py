"""Serialize rounds as ``datastream.Round`` messages, without message objects. Pure.

Owns the bytes of the most frequent messages: a round and a batch of rounds, as protobuf and as protobuf's JSON. This
takes a fraction of the time of generated code; property tests compare the results of both.
https://protobuf.dev/programming-guides/encoding/ and https://protobuf.dev/programming-guides/json/
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from relay.http2 import DataBatch
from relay.live.encode import Renderable
from relay.rpc.calls.request_messages import prefixed
from roundlog.entry import LogEntry
from rounds import Round
from rounds.cursor import cursor_prefix, cursor_text
from rounds.round import extras_fault, read_plain_unchecked
from rounds.subjects import is_slug
from rounds.times import SECONDS, is_utc_time, minute_s, nanos, unix_s

_UINT64: Final = 2**64 - 1
_SIX_BYTES_BEGIN: Final = 1 << 28
_SIX_BYTES_END: Final = 1 << 35
"""The Unix seconds, from 1978 to the year 3058, of which a ``Timestamp`` takes six bytes."""
_TWO_BYTES_END: Final = 1 << 14
_CACHED_CHARACTERS: Final = 128
"""Length of the longest text whose check is cached: it bounds the memory of the caches."""
_json: Final = msgspec.json.Encoder()
_PRECOMPUTED: Final = 512
"""Length prefixes below this are precomputed; times and cursors are all shorter than 128."""


@dataclass(frozen=True, slots=True)
class ProtobufRound:
    """A ``datastream.Round`` as a message of gRPC, rendered once per round for all streams."""

    def render(self, item: Renderable) -> bytes:
        return _message(item.round, item.cursor)

    def render_stored(self, epoch: str, entries: Sequence[LogEntry]) -> list[bytes]:
        """See `relay.live.stored.RendersStored`."""
        return _stored(epoch, entries, _MESSAGE, _message)

    def join(self, rendered: list[bytes]) -> DataBatch:
        return DataBatch(rendered[0] if len(rendered) == 1 else b"".join(rendered))


def round_bytes(round_: Round, cursor: str) -> bytes:
    """Serialize a valid round; fields are in the order of their numbers, as generated code writes them."""
    number, moment, finished_at = round_.round_id, round_.timestamp, round_.finished_at
    text, extras, written = finished_at.encode(), round_.extras.encode(), cursor.encode()
    data = b"".join(
        (
            b"\x08" + _fast_varint(number) if number else b"",
            _game(round_.game_slug, round_.game_type),
            _FINISHED_AT[len(text)],
            text,
            _EXTRAS[len(extras)] if len(extras) < _PRECOMPUTED else b"\x2a" + varint(len(extras)),
            extras,
            b"\x30" + _fast_varint(moment) if moment else b"",
            _CURSOR[len(written)],
            written,
            _finished_time(finished_at),
        )
    )
    return data if round_.revision == 1 else data + _of_correction(round_)


def _of_correction(round_: Round) -> bytes:
    """Serialize the fields that only corrections have."""
    return b"\x50" + varint(round_.revision) + (b"\x58\x01" if round_.voided else b"")


def batch_entry(round_: Round, cursor: str) -> bytes:
    """Serialize a valid round as an element of ``RoundBatch.rounds``; a batch is a sequence of such elements."""
    data = round_bytes(round_, cursor)
    return (_ENTRY[len(data)] if len(data) < _PRECOMPUTED else b"\x0a" + varint(len(data))) + data


def stored_entries(epoch: str, entries: Iterable[LogEntry]) -> list[bytes]:
    """Return ``batch_entry(Round.parse_stored(data, game), cursor)`` of each stored round, at half the cost.

    The checks of a game and its type, of a minute and of short extras are cached with their bytes, and functions are
    inlined. Unusual rounds are parsed and serialized by the general functions.

    Raises:
        InvalidRound: As `Round.parse_stored`, for any of the rounds.
    """
    return _stored(epoch, entries, _ENTRY, batch_entry)


def _stored(
    epoch: str, entries: Iterable[LogEntry], heads: Sequence[bytes], write: Callable[[Round, str], bytes]
) -> list[bytes]:
    """Serialize stored rounds; `heads` is what precedes one, by its size, and `write` does both for an unusual one."""
    written, leading, upper_bits, prefix = [], _LEADING_BYTES, _cached_varint, cursor_prefix(epoch).encode()
    for sequence, name, data in entries:
        try:
            round_ = read_plain_unchecked(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            written.append(write(Round.parse_stored(data, name), cursor_text(epoch, sequence)))
            continue
        number, moment, text, extras = round_.round_id, round_.timestamp, round_.finished_at, round_.extras
        slug, type_ = round_.game_slug, round_.game_type
        game, time = len(slug) + len(type_) <= _CACHED_CHARACTERS and _checked_game(slug, type_), _finished_time(text)
        payload = len(extras) <= _CACHED_CHARACTERS and _checked_extras(extras)
        if not (game and time and payload) or number < _TWO_BYTES_END or moment < _TWO_BYTES_END or name != slug:
            written.append(write(Round.parse_stored(data, name), cursor_text(epoch, sequence)))
            continue
        cursor = b"%b%d" % (prefix, sequence)
        entry = b"".join(
            (
                b"\x08",
                leading[number & 0x7F],
                leading[number >> 7 & 0x7F],
                upper_bits(number >> 14),
                game,
                _FINISHED_AT[len(text)],
                text.encode(),
                payload,
                leading[moment & 0x7F],
                leading[moment >> 7 & 0x7F],
                upper_bits(moment >> 14),
                _CURSOR[len(cursor)],
                cursor,
                time,
            )
        )
        written.append(heads[len(entry)] + entry)
    return written


def _message(round_: Round, cursor: str) -> bytes:
    return prefixed(round_bytes(round_, cursor))


def stored_json(epoch: str, entries: Iterable[LogEntry]) -> list[bytes]:
    """Render stored rounds with `round_json`; raise as `Round.parse_stored` does."""
    return [
        round_json(Round.parse_stored(data, name), cursor_text(epoch, sequence)) for sequence, name, data in entries
    ]


class _JsonRound(msgspec.Struct, omit_defaults=True):
    """``datastream.Round`` in protobuf's JSON: 64-bit numbers are text, and default values are omitted."""

    round_id: str = ""
    game_slug: str = ""
    game_type: str = ""
    finished_at: str = ""
    extras: str = ""
    timestamp: str = ""
    cursor: str = ""
    finished_time: str = ""
    revision: int = 0
    voided: bool = False


def round_json(round_: Round, cursor: str) -> bytes:
    """Render a valid round as protobuf's JSON, with the field names of the contract."""
    moment = round_.finished_at
    if len(moment) > 20:
        nanos = moment[20:-1].ljust(9, "0")  # protobuf writes 0, 3, 6 or 9 digits
        while nanos.endswith("000"):
            nanos = nanos[:-3]
        moment = f"{moment[:19]}.{nanos}Z" if nanos else f"{moment[:19]}Z"
    return _json.encode(
        _JsonRound(
            str(round_.round_id) if round_.round_id else "",
            round_.game_slug,
            round_.game_type,
            round_.finished_at,
            round_.extras,
            str(round_.timestamp) if round_.timestamp else "",
            cursor,
            moment,
            round_.revision if round_.revision > 1 else 0,
            round_.voided,
        )
    )


def batch_json(rounds: Sequence[bytes]) -> bytes:
    """Join rounds in JSON to a ``RoundBatch``."""
    return b'{"rounds":[%b]}' % b",".join(rounds)


def varint(number: int) -> bytes:
    """Encode an unsigned number: seven bits per byte, the lowest first."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def _fast_varint(number: int) -> bytes:
    """Return ``varint(number)``, partly from a cache: ids and times of one log share most of their upper bits."""
    if number >= _TWO_BYTES_END:
        return _LEADING_BYTES[number & 0x7F] + _LEADING_BYTES[number >> 7 & 0x7F] + _cached_varint(number >> 14)
    return _LEADING_BYTES[number & 0x7F] + _LAST_BYTES[number >> 7] if number > 0x7F else _LAST_BYTES[number]


_LAST_BYTES: Final = [bytes((bits,)) for bits in range(0x80)]
_LEADING_BYTES: Final = [bytes((0x80 | bits,)) for bits in range(0x80)]
_TIME_PREFIX: Final = [b"\x42\x06\x08" + lowest for lowest in _LEADING_BYTES]
_cached_varint: Final = lru_cache(maxsize=4096)(varint)


@lru_cache(maxsize=1024)
def _game(slug: str, type_: str) -> bytes:
    first, second = slug.encode(), type_.encode()
    return b"".join((b"\x12", varint(len(first)), first, b"\x1a", varint(len(second)), second))


@lru_cache(maxsize=1024)
def _checked_game(slug: str, type_: str) -> bytes:
    """Serialize the fields of a game and its type; empty when they are not slugs."""
    return _game(slug, type_) if is_slug(slug) and is_slug(type_) else b""


@lru_cache(maxsize=4096)
def _checked_extras(extras: str) -> bytes:
    """Serialize the field of extras and the tag of ``timestamp``; empty when the extras are invalid or not short."""
    if extras_fault(extras) is not None or len(data := extras.encode()) > _CACHED_CHARACTERS:
        return b""
    return b"\x2a%b%b\x30" % (varint(len(data)), data)


def _finished_time(text: str) -> bytes:
    """Serialize the field ``finished_time``, a ``google.protobuf.Timestamp``; empty when `text` is no UTC time."""
    minute, second = minute_s(text[:17]), SECONDS.get(text[17:19])
    if minute is not None and second is not None and _SIX_BYTES_BEGIN <= (seconds := minute + second) < _SIX_BYTES_END:
        if text[19:] == "Z":
            return _TIME_PREFIX[seconds & 0x7F] + _LEADING_BYTES[seconds >> 7 & 0x7F] + _cached_varint(seconds >> 14)
        if len(text) <= 30 and (fraction := _checked_fraction(text[19:])):
            size = _LAST_BYTES[6 + len(fraction)]
            whole = (
                b"\x42",
                size,
                b"\x08",
                _LEADING_BYTES[seconds & 0x7F],
                _LEADING_BYTES[seconds >> 7 & 0x7F],
                _cached_varint(seconds >> 14),
            )
            return b"".join((*whole, fraction))
    return _timestamp(text) if is_utc_time(text) else b""


def _timestamp(text: str) -> bytes:
    """Serialize any time; `_finished_time` handles present years faster."""
    seconds, fraction = unix_s(text), nanos(text)
    moment = b"\x08" + _fast_varint(seconds & _UINT64) if seconds else b""  # before 1970: two's complement
    moment += b"\x10" + _fast_varint(fraction) if fraction else b""
    return b"\x42%c%b" % (len(moment), moment)


@lru_cache(maxsize=4096)
def _checked_fraction(text: str) -> bytes:
    """Serialize the nanoseconds of a time's last part, such as ``.123Z``; empty when it has none or is malformed."""
    whole = f"2026-01-18T10:00:30{text}"
    return b"\x10" + _fast_varint(fraction) if is_utc_time(whole) and (fraction := nanos(whole)) else b""


def _prefixes(tag: bytes, count: int = _PRECOMPUTED) -> list[bytes]:
    """Return the tag and length of a length-delimited field, by length."""
    return [tag + varint(size) for size in range(count)]


_FINISHED_AT: Final = _prefixes(b"\x22", 128)
_EXTRAS: Final = _prefixes(b"\x2a")
_CURSOR: Final = _prefixes(b"\x3a", 128)
_ENTRY: Final = _prefixes(b"\x0a")
_MESSAGE: Final = [prefixed(bytes(size))[:-size] if size else prefixed(b"") for size in range(_PRECOMPUTED)]
