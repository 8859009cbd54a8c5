"""The text forms of values: how the fields of a round are read from what a session of ours writes. Pure.

What it writes depends on its settings: see `backends.postgres.session_settings`.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

from rounds import InvalidRound, stringify_extras
from rounds.times import SECONDS, minute_s

MAX_ROUND_ID: Final = 2**63 - 1
_DIGITS: Final = 19
_FRACTION_DIGITS: Final = 9
_TIMESTAMP: Final = re.compile(
    r"\A(\d{4}-\d\d-\d\d)[ Tt](\d\d:\d\d):(\d\d)(\.\d{1,9})? ?([Zz]|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?\Z", re.ASCII
)
_UTC: Final = frozenset(("", "Z", "z", "+00", "+00:00", "+0000", "-00", "-00:00"))
_UNIX: Final = re.compile(r"\A\d{1,19}(?:\.\d{1,9})?\Z", re.ASCII)
_OLDEST_S: Final = 10**8
"""Smaller numbers, such as 0, are no times."""
_WHOLE: Final = re.compile(r"(?<=[0-9])\.0*\Z")
"""The fraction of a number that is an integer."""
_PLAIN_EXTRAS: Final = msgspec.json.Decoder(dict[str, str])
_ANY_EXTRAS: Final = msgspec.json.Decoder(float_hook=str)


def round_id_of(text: str | None) -> int:
    """Read a round id; raise `InvalidRound`."""
    # isdecimal() and int() accept digits of every script; only ASCII is allowed.
    if text is not None:
        # Text that holds an integer may have spaces, and a numeric column may have a scale: 5.00 is 5.
        digits = text if text.isdecimal() else _WHOLE.sub("", text.strip(" "))
        if digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS:
            number = int(digits)
            if number <= MAX_ROUND_ID:
                return number
    shown = "NULL" if text is None else f"{text[:40]!r}"
    raise InvalidRound(f"round_id is {shown}; it must be an integer from 0 to 2^63-1")


def finished_at_of(text: str | None) -> str:
    """Write a timestamp of PostgreSQL as RFC 3339 in UTC; raise `InvalidRound`.

    Also reads text columns and members of JSON with a time in ISO form, and Unix time in seconds, milliseconds,
    microseconds or nanoseconds. A leap second, ``23:59:60``, is the next second, as in PostgreSQL.
    """
    # The usual form first, since this is half of the cost of a round.
    if text is not None and text[-3:] == "+00":
        minute, seconds = _minute(text[:17]), text[17:-3]
        if minute is not None and seconds[:2] in SECONDS and (len(seconds) == 2 or _is_fraction(seconds[2:])):
            return f"{minute}{seconds}Z"
    return _any_finished_at(text)


@lru_cache(maxsize=1024)
def _minute(text: str) -> str | None:
    written = text.replace(" ", "T", 1)
    return None if minute_s(written) is None else written


def _is_fraction(text: str) -> bool:
    return text[0] == "." and 1 < len(text) <= _FRACTION_DIGITS + 1 and text[1:].isdecimal() and text.isascii()


def _any_finished_at(text: str | None) -> str:
    if text is None:
        raise InvalidRound("finished_at is NULL; it must be a timestamp")
    if (match := _TIMESTAMP.match(text.strip(" "))) is not None:
        date, minute, second, fraction, zone = match.groups(default="")
        is_leap = second == "60"
        try:
            if is_leap or zone not in _UTC:
                return _in_utc(f"{date}T{minute}:{'59' if is_leap else second}{fraction}{zone or 'Z'}", is_leap)
            if minute_s(f"{date}T{minute}:") is not None and second in SECONDS:
                return f"{date}T{minute}:{second}{fraction}Z"
        except (ValueError, OverflowError):
            pass  # a day, an hour or a zone that does not exist
    elif _UNIX.match(text):
        return _of_unix_time(text)
    raise InvalidRound(f"finished_at {text[:40]!r} is not a timestamp of the years 1 to 9999 in ISO form")


def _in_utc(text: str, is_leap: bool) -> str:
    moment = datetime.fromisoformat(text).astimezone(UTC) + timedelta(seconds=is_leap)
    return f"{moment.isoformat().removesuffix('+00:00')}Z"


def _of_unix_time(text: str) -> str:
    """Read Unix time; its unit follows from its size, for the years 1973 to 5138."""
    number = Decimal(text)
    for digits in (0, 3, 6, 9):
        if _OLDEST_S <= number < 10 ** (11 + digits):
            moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(number.scaleb(-digits)))
            fraction = f"{number.scaleb(-digits) % 1:.9f}"[1:].rstrip("0").rstrip(".")
            return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    raise InvalidRound(f"finished_at {text[:40]!r} is not Unix time of the years 1973 to 5138")


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
