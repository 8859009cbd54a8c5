"""Values that are given on the command line: durations, times and limits. Pure."""

import re
from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final

from auth.key_members import LIMITS, time_text
from relay.admin.admin_errors import InvalidChange
from rounds.times import parse_moment

_DURATION: Final = re.compile(r"\A(\d{1,6}(?:\.\d{1,3})?)(s|m|h|d|w)\Z", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def duration_s(option: str, text: str) -> float:
    """Read ``90d``, ``24h``, ``30m``, ``45s`` or ``0``; raise `InvalidChange`, which names `option`."""
    if text == "0":
        return 0.0
    match = _DURATION.match(text)
    if match is None:
        raise InvalidChange(f"{option} {text[:40]!r} is not a duration, such as 90d, 24h, 30m or 45s")
    return float(match[1]) * _SECONDS[match[2]]


def expiry(option: str, text: str, *, now: float) -> str | None:
    """Read ``never``, a duration from now, a date or a time (RFC 3339); return it as RFC 3339, None for never."""
    if text == "never":
        return None
    if _DURATION.match(text):
        return time_text(int(now + duration_s(option, text)))
    try:
        moment = parse_moment(text)
    except ValueError:
        raise InvalidChange(
            f"{option} {text[:40]!r} is none of: never, a duration such as 90d, a date, a time such as "
            "2027-01-31T00:00:00Z"
        ) from None
    return time_text((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def limits(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``NAME=NUMBER`` of each; ``NAME=default`` is None. Raises `InvalidChange`."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in LIMITS:
            raise InvalidChange(f"--limit {text[:60]!r} is not NAME=NUMBER; names are {', '.join(LIMITS)}")
        found[name] = None if value == "default" else _number(name, value)
    return found


def _number(name: str, text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise InvalidChange(f"--limit {name}={text[:40]!r} is not a number; give one, or default") from None
