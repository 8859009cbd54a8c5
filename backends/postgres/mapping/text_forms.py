"""The text forms of values: what a session writes, and how the fields of a round are read from it. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from rounds import InvalidRound, stringify_extras

SESSION: Final = {"DateStyle": "ISO, YMD", "TimeZone": "UTC", "IntervalStyle": "postgres"}
"""The settings of a session that reads rows."""

MAX_ROUND_ID: Final = 2**63 - 1
_DIGITS: Final = 19
_TIMESTAMP: Final = re.compile(r"\A(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00(?::?00)?)?\Z", re.ASCII)
_PLAIN_EXTRAS: Final = msgspec.json.Decoder(dict[str, str])
_ANY_EXTRAS: Final = msgspec.json.Decoder(float_hook=str)


def round_id_of(text: str | None) -> int:
    """Read a round id; raise `InvalidRound`."""
    # isdecimal() and int() accept digits of every script; only ASCII is allowed.
    if text is not None and text.isascii() and text.isdecimal() and len(text) <= _DIGITS:
        number = int(text)
        if number <= MAX_ROUND_ID:
            return number
    shown = "NULL" if text is None else f"{text[:40]!r}"
    raise InvalidRound(f"round_id is {shown}; it must be an integer from 0 to 2^63-1")


def finished_at_of(text: str | None) -> str:
    """Write a timestamp of PostgreSQL as RFC 3339 in UTC; raise `InvalidRound`."""
    if text is None:
        raise InvalidRound("finished_at is NULL; it must be a timestamp")
    if (match := _TIMESTAMP.match(text)) is not None:
        written = f"{match[1]}T{match[2]}Z"
        # A text column may have seconds such as 99.
        if _is_timestamp(written):
            return written
    else:
        try:
            parsed = datetime.fromisoformat(text)
            if parsed.tzinfo is not None:
                return parsed.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
        except (ValueError, OverflowError):
            pass  # "infinity", years BC or after 9999, a DateStyle that is not ISO
    raise InvalidRound(f"finished_at {text[:40]!r} is not a timestamp of the years 1 to 9999 in ISO form")


def _is_timestamp(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def extras_of(text: str | None) -> str:
    """Read a JSON object, with its numbers as strings digit for digit; raise `InvalidRound`."""
    if text is None:
        return "{}"
    try:
        _PLAIN_EXTRAS.decode(text)
    except msgspec.ValidationError:
        return _stringified(text)
    except msgspec.DecodeError as error:
        raise InvalidRound(f"extras {text[:40]!r} are not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRound("extras are nested too deeply") from error
    return text


def _stringified(text: str) -> str:
    """Rewrite JSON with values other than strings: its numbers become strings, digit for digit."""
    try:
        return stringify_extras(_ANY_EXTRAS.decode(text))
    except msgspec.DecodeError as error:
        raise InvalidRound(f"extras {text[:40]!r} are not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRound("extras are nested too deeply") from error
