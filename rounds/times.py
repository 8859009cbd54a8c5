"""Times as rounds carry them: RFC 3339 in UTC with ``Z``, such as ``2026-01-18T10:00:30Z``. Pure.

Owns which text is such a time, and its conversion to and from Unix time. Minutes are cached: rounds arrive in time
order, so nearly every round is of a minute that was just parsed.
https://www.rfc-editor.org/rfc/rfc3339#section-5.6
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_MINUTE: Final = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:\Z")
SECONDS: Final = {f"{second:02}": second for second in range(60)}
"""The seconds of a minute, by their two digits."""
_LEAP_SECOND: Final = re.compile(r"(?<=[Tt ][0-9]{2}:[0-9]{2}:)60(?![0-9])")
WHOLE_SECONDS: Final = frozenset(f"{text}Z" for text in SECONDS)
"""What follows the minute in a time without a fraction."""
_PARTS_OF_SECONDS: Final = re.compile(r"\A[0-5][0-9]\.[0-9]{1,9}Z\Z")


def is_utc_time(text: str) -> bool:
    """Whether `text` is a time as rounds carry it, with up to nine digits of a second's fraction."""
    seconds = text[17:]
    if seconds not in WHOLE_SECONDS and _PARTS_OF_SECONDS.match(seconds) is None:
        return False
    return minute_s(text[:17]) is not None


def parse_moment(text: str) -> datetime:
    """Read a time in ISO form as `datetime.fromisoformat` does; a leap second is the next second, as in PostgreSQL.

    Raises:
        ValueError: The text is not such a time.
    """
    written = _LEAP_SECOND.sub("59", text, count=1)
    moment = datetime.fromisoformat(written)
    if written == text:
        return moment
    try:
        return moment + timedelta(seconds=1)
    except OverflowError:
        raise ValueError(f"{text[:40]!r} is after the year 9999") from None


def after_leap_second(text: str) -> str | None:
    """Write a leap second, such as ``2016-12-31T23:59:60.5Z``, as the next second; None for any other text."""
    if text[17:19] != "60" or not is_utc_time(f"{text[:17]}59{text[19:]}"):
        return None
    try:
        return f"{parse_moment(f'{text[:19]}+00:00'):%Y-%m-%dT%H:%M:%S}{text[19:]}"
    except ValueError:
        return None


def unix_s(text: str) -> int:
    """Return the whole Unix seconds of a text that `is_utc_time` accepts; negative before 1970.

    Raises:
        ValueError: The minute does not exist.
    """
    begins = minute_s(text[:17])
    if begins is None:
        raise ValueError(f"{text[:40]!r} is not RFC 3339 in UTC")
    return begins + SECONDS[text[17:19]]


def nanos(text: str) -> int:
    """Return the fraction of a second, in nanoseconds, of a text that `is_utc_time` accepts."""
    return int(text[20:-1].ljust(9, "0")) if len(text) > 20 else 0


def utc_text(moment_ms: int) -> str:
    """Write Unix milliseconds as RFC 3339 in UTC with ``Z``; the fraction only when there is one."""
    seconds, millis = divmod(moment_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{millis:03}Z" if millis else f"{text}Z"


@lru_cache(maxsize=4096)
def minute_s(text: str) -> int | None:
    """Return the Unix time at which a minute such as ``2026-01-18T10:00:`` begins; None when it is not a minute."""
    if _MINUTE.match(text) is None:
        return None
    try:
        return int(datetime.fromisoformat(f"{text}00+00:00").timestamp())
    except ValueError:
        return None
