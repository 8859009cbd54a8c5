"""One finished round of one game, and its JSON form.

Owns what a valid round is and how it is written for clients and in the log. Knows nothing of NATS or of any protocol.
Why msgspec: docs/adr/0001-msgspec-for-json.md
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rounds.subjects import game_of, is_corrections, is_slug
from rounds.times import WHOLE_SECONDS, after_leap_second, is_utc_time, minute_s

_MAX_INT64: Final = 2**63 - 1

_SHORT: Final = 128
"""Extras up to this many characters are checked once and remembered: many rounds have the same."""
_SLUG_RULE: Final = "is not allowed; use 1 to 64 of a-z, 0-9 and '-', not starting with '-'"

Int63 = Annotated[int, Meta(ge=0, le=_MAX_INT64)]
Revision = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class InvalidRound(ValueError):
    """The data is not a round. The text names the field, its value and what is allowed."""


class Round(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One finished round of one game: the six fields of the wire contract, in its order.

    A *correction* is a later state of a round that was published before, and has two more fields.

    Values made by `parse` and `make` have been checked; the bare constructor checks nothing.
    """

    round_id: Int63
    """Unique within its game."""
    game_slug: str
    game_type: str
    """``multiplier``, ``color``, ``trending``, ``slots``, or an operator's own."""
    finished_at: str
    """RFC 3339 in UTC with ``Z``, kept as the source wrote it."""
    extras: str
    """A JSON object as text; the numbers in it are strings. Unknown keys pass through untouched."""
    timestamp: Int63
    """Unix milliseconds at which the source committed the round, so that now - timestamp is the latency."""
    revision: Revision = 1
    """1: the round as it was first finished; 2 and more: a correction. Not written when it is 1."""
    voided: bool = False
    """Whether a correction takes the round back. Not written when it is False."""

    @classmethod
    def parse(cls, data: bytes | str) -> "Round":
        """Read a round from its JSON form; unknown members (such as ``cursor``) are ignored.

        Raises:
            InvalidRound: Not JSON, not UTF-8, a field missing, or a value outside what the contract allows.
        """
        try:
            round_ = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise InvalidRound(str(error)) from error
        except UnicodeDecodeError as error:
            raise InvalidRound(f"not UTF-8 at byte {error.start}") from error
        except RecursionError as error:
            raise InvalidRound("nested too deeply") from error
        return _checked(round_)

    @classmethod
    def parse_stored(cls, data: bytes, name: str) -> "Round":
        """Read a round as the log holds it; `name` stands for a game, or for its corrections, and is its subject's end.

        Raises:
            InvalidRound: As `parse`, or as `check_stands`.
        """
        round_ = cls.parse(data)
        if round_.game_slug != name or round_.revision != 1 or round_.voided:
            round_.check_stands(name)
        return round_

    def check_stands(self, name: str) -> None:
        """Check that this may stand in the log under `name`, which stands for a game, or for its corrections.

        Raises:
            InvalidRound: A correction stands where rounds do, or the reverse; or a correction is of another game.
        """
        if not is_corrections(name):
            if self.revision != 1 or self.voided:
                raise InvalidRound(f"a correction (revision {self.revision}) stands among the rounds of {name!r}")
        elif self.revision == 1 or self.game_slug != game_of(name):
            what = f"revision {self.revision} of a round of {self.game_slug!r}"
            raise InvalidRound(f"{what} stands among the corrections of {game_of(name)!r}")

    @classmethod
    def make(
        cls,
        *,
        round_id: int,
        game_slug: str,
        game_type: str,
        finished_at: str,
        extras: str,
        timestamp: int,
        voided: bool = False,
    ) -> "Round":
        """Build a round from values of any origin, checked as strictly as `parse` does.

        `voided`: of a correction that takes the round back.
        A leap second, such as ``23:59:60Z``, becomes the next second: clients could not read it.

        Raises:
            InvalidRound: A value is outside what the contract allows.
        """
        fields = {
            "round_id": round_id,
            "game_slug": game_slug,
            "game_type": game_type,
            "finished_at": after_leap_second(finished_at) or finished_at if ":60" in finished_at else finished_at,
            "extras": extras,
            "timestamp": timestamp,
            "voided": voided,
        }
        try:
            return _checked(msgspec.convert(fields, cls))
        except msgspec.ValidationError as error:
            raise InvalidRound(str(error)) from error

    def to_json(self) -> bytes:
        """Render the six given fields in contract order, then those of a correction, without spaces.

        This is the form the log stores.
        """
        return _encoder.encode(self)

    @property
    def finished(self) -> datetime:
        """`finished_at` as an aware UTC datetime, to the microsecond."""
        return datetime.fromisoformat(self.finished_at)


_decoder: Final = msgspec.json.Decoder(Round)
read_unchecked: Final = _decoder.decode
"""Decodes a round and checks types only, not what else `Round.parse` checks; raises msgspec's and Python's errors."""


def read_stored(entries: Iterable[tuple[int, str, bytes]]) -> list[Round]:
    """Return ``Round.parse_stored(data, name)`` of each (sequence, name, data), at half the cost.

    Raises:
        InvalidRound: As `Round.parse_stored`, for any of them.
    """
    rounds: list[Round] = []
    add, read, fault_of, seconds = rounds.append, read_unchecked, _fault_of_short, WHOLE_SECONDS
    for _, name, data in entries:
        try:
            round_ = read(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            add(Round.parse_stored(data, name))
            continue
        text, extras = round_.finished_at, round_.extras
        if (
            round_.game_slug == name
            and round_.revision == 1
            and _are_slugs(name, round_.game_type)
            and text[17:] in seconds
            and minute_s(text[:17]) is not None
            and len(extras) <= _SHORT
            and fault_of(extras) is None
            and not round_.voided
        ):
            add(round_)
        else:
            add(Round.parse_stored(data, name))
    return rounds


@lru_cache(maxsize=1024)
def _are_slugs(game: str, type_: str) -> bool:
    return is_slug(game) and is_slug(type_)


class PlainRound(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The six fields of a round that is no correction, as `Round` has them."""

    round_id: Int63
    game_slug: str
    game_type: str
    finished_at: str
    extras: str
    timestamp: Int63


read_plain_unchecked: Final = msgspec.json.Decoder(PlainRound).decode
"""Decodes what has a round's six fields and no others, and checks types only; raises msgspec's and Python's errors.

For what is done for each stored round: at what is refused here, `Round.parse_stored` has to look.
"""
_encoder: Final = msgspec.json.Encoder()


def with_cursor(round_json: bytes, cursor: str) -> bytes:
    """Add ``cursor`` as the last member to `Round.to_json` output: what clients receive. One copy, no parsing."""
    return b'%b,"cursor":"%b"}' % (round_json[:-1], cursor.encode("ascii"))


def stringify_extras(value: object) -> str:
    """Render decoded extras as the contract wants them: a JSON object as text, every number in it a string.

    Raises:
        InvalidRound: The value is not a dict, or holds something that JSON cannot express.
    """
    if not isinstance(value, dict):
        raise InvalidRound(f"extras must be a JSON object, got {type(value).__name__}")
    try:
        return _encoder.encode(_numbers_as_strings(value)).decode()
    except (TypeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRound(f"extras cannot be written as JSON: {error}") from error


def _checked(round_: Round) -> Round:
    # Not as patterns of the struct, which cost more than the rest of the decoding. Repeated checks are cached; of
    # extras only short ones, so that the cache stays small.
    if not is_slug(round_.game_slug):
        raise InvalidRound(f"game_slug {round_.game_slug[:80]!r} {_SLUG_RULE}")
    if not is_slug(round_.game_type):
        raise InvalidRound(f"game_type {round_.game_type[:80]!r} {_SLUG_RULE}")
    if not is_utc_time(round_.finished_at):
        raise InvalidRound(
            f"finished_at {round_.finished_at[:40]!r} is not RFC 3339 in UTC, such as '2026-01-18T10:00:30Z'"
        )
    extras = round_.extras
    fault = _fault_of_short(extras) if len(extras) <= _SHORT else extras_fault(extras)
    if fault is not None:
        raise InvalidRound(fault)
    return round_


def extras_fault(extras: str) -> str | None:
    """Return what is wrong with extras in one sentence; None when they are valid."""
    try:
        _extras_decoder.decode(extras)
    except (msgspec.MsgspecError, RecursionError) as error:
        return f"extras must be a JSON object as a string, got {extras[:40]!r}: {error}"
    except UnicodeEncodeError:
        return "extras hold text that is not Unicode"
    return None


_fault_of_short: Final = lru_cache(maxsize=4096)(extras_fault)
_extras_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _numbers_as_strings(value: object) -> object:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return {key: _numbers_as_strings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers_as_strings(item) for item in value]
    return str(value)  # Decimal and its like
