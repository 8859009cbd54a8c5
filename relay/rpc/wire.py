"""Rounds as serialized ``datastream.Round`` messages, made without message objects. Pure.

Owns the bytes of what is sent most: one round, and a batch of them, as protobuf and as protobuf's JSON. They are put
together by hand, in a fraction of the time that generated code takes; property tests hold both to the same result.
https://protobuf.dev/programming-guides/encoding/ and https://protobuf.dev/programming-guides/json/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from relay.encode import Renderable
from rounds import Round
from rounds.times import nanos, unix_s

_UINT64: Final = 2**64 - 1
_json: Final = msgspec.json.Encoder()
_ONE_BYTE: Final = [bytes((number,)) for number in range(0x80)]
# These are always shorter than 128 bytes, so their length is one byte.
_FINISHED_AT: Final = [b"\x22" + size for size in _ONE_BYTE]
_CURSOR: Final = [b"\x3a" + size for size in _ONE_BYTE]
_SECONDS_OF_SIX_BYTES: Final = range(1 << 28, 1 << 35)  # from 1978 to the year 3058


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
    finished_at, extras, place = round_.finished_at.encode(), round_.extras.encode(), cursor.encode()
    return b"".join(
        (
            b"\x08" + varint(round_.round_id) if round_.round_id else b"",
            _game(round_.game_slug, round_.game_type),
            _FINISHED_AT[len(finished_at)],
            finished_at,
            b"\x2a",
            varint(len(extras)),
            extras,
            b"\x30" + varint(round_.timestamp) if round_.timestamp else b"",
            _CURSOR[len(place)],
            place,
            _finished_time(round_.finished_at),
        )
    )


def batch_entry(round_: Round, cursor: str) -> bytes:
    """Serialize a valid round as an element of ``RoundBatch.rounds``; a batch is such elements one after another."""
    data = round_bytes(round_, cursor)
    return b"\x0a%b%b" % (varint(len(data)), data)


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
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return (number & 0x7F | (number & 0x3F80) << 1 | 0x80).to_bytes(2, "little")
    return _lower(number & 0x3FFF) + _upper(number >> 14)


@lru_cache(maxsize=0x4000)
def _lower(number: int) -> bytes:
    return (number & 0x7F | (number & 0x3F80) << 1 | 0x8080).to_bytes(2, "little")


# Ids and times of one log have most of their upper bits in common.
_upper: Final = lru_cache(maxsize=4096)(varint)


@lru_cache(maxsize=1024)
def _game(slug: str, type_: str) -> bytes:
    first, second = slug.encode(), type_.encode()
    return b"".join((b"\x12", varint(len(first)), first, b"\x1a", varint(len(second)), second))


def _finished_time(text: str) -> bytes:
    """Serialize the field ``finished_time``, a ``google.protobuf.Timestamp``, to the nanosecond."""
    seconds = unix_s(text)
    if len(text) == 20 and seconds in _SECONDS_OF_SIX_BYTES:  # nearly always, at half the cost
        return b"\x42\x06\x08" + varint(seconds)
    beyond = nanos(text)
    moment = b"\x08" + varint(seconds & _UINT64) if seconds else b""  # before 1970: two's complement
    moment += b"\x10" + varint(beyond) if beyond else b""
    return b"\x42%c%b" % (len(moment), moment)
