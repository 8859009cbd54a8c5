"""Where a stream begins and ends, read from what the client sent. Pure.

Owns the meaning of ``after``, ``from``, ``last``, ``to``, ``speed`` and ``Last-Event-ID``, and the ``hello`` that
answers them. See docs/resume.md.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Self

from relay.errors import BadRequest
from relay.live.bounds import Bounds
from rounds import Cursor
from rounds.times import parse_moment

PARAMETERS: Final = ("after", "from", "last", "to", "speed", "hello")
MAX_LAST: Final = 10_000
MIN_SPEED: Final = 0.01
MAX_SPEED: Final = 10_000.0

OVERRUN_MS: Final = 60_000
"""Reading up to a time continues so far past it: the log is not quite in the order of the rounds' own times."""
SETTLE_S: Final = 1.0
"""How long after that time a stream at the head of the log waits for rounds that were committed before it."""

_RFC3339: Final = re.compile(
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[-+ ][0-9]{2}:[0-9]{2})\Z", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"\A[0-9]{1,20}(\.[0-9]{1,20})?\Z")
LATEST_MS: Final = 253_402_214_400_000
"""The last day of the year 9999. A later time means never, and `datetime` cannot represent it plus a zone."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BEGINNINGS: Final = ("after", "from", "last")


@dataclass(frozen=True, slots=True)
class Start:
    """What part of history a client asked for. At most one of `after`, `since_ms` and `last` is given."""

    after: Cursor | None = None
    since_ms: int | None = None  # Unix milliseconds, inclusive
    last: int | None = None  # rounds of each game
    until_ms: int | None = None  # Unix milliseconds, inclusive; the stream ends there
    speed: float | None = None  # times the original cadence; None: as fast as the client reads
    events: bool | None = None  # whether the client asked for events, or refused them; None: it did neither

    @property
    def is_live(self) -> bool:
        """True when nothing of history is asked for."""
        begins = self.after is not None or self.since_ms is not None or self.last is not None
        return not begins and self.until_ms is None and self.speed is None

    @property
    def receives_events(self) -> bool:
        """True when the client sent a cursor or a time, or asked for events that say how complete its answer is."""
        if self.events is not None:
            return self.events
        return self.after is not None or self.since_ms is not None or self.until_ms is not None

    @classmethod
    def parse(cls, query: Mapping[str, str], *, last_event_id: str | None = None) -> Self:
        """Read where to begin and end.

        Args:
            query: Parameters of the URL; other names are ignored.
            last_event_id: The header that an EventSource sends when it reconnects. It wins over where the URL said to
                begin: the URL is still that of the first connection.

        Raises:
            InvalidCursor: A cursor is malformed.
            BadRequest: Another value is, or two beginnings were given.
        """
        if not last_event_id and query.keys().isdisjoint(PARAMETERS):
            return cls()
        given = [name for name in _BEGINNINGS if name in query]
        if len(given) > 1:
            raise BadRequest(f"{' and '.join(given)} were given; a stream has one beginning, so send one of them")
        since_ms, until_ms = parse_time(query, "from"), parse_time(query, "to")
        if since_ms is not None and until_ms is not None and since_ms > until_ms:
            raise BadRequest(f"from {query['from']!r} is later than to {query['to']!r}; it must not be")
        after = Cursor.parse(query["after"]) if "after" in query else None
        last = None if "last" not in query else parse_int(query, "last", at_least=1, at_most=MAX_LAST)
        if last_event_id:
            after, since_ms, last = Cursor.parse(last_event_id), None, None
        return cls(after, since_ms, last, until_ms, _speed(query), asks_hello(query))


@lru_cache(maxsize=16)
def hello(bounds: Bounds, *, complete: bool) -> Mapping[str, object]:
    """Return the event that says what the log holds, and whether that includes everything that was asked for."""
    return {
        "event": "hello",
        "complete": complete,
        "first": str(bounds.at(bounds.first)),
        "head": str(bounds.at(bounds.head)),
    }


def asks_hello(query: Mapping[str, str]) -> bool | None:
    """Read ``hello``: 1 asks for events also without a cursor or a time, 0 refuses them; None when it is not given."""
    return parse_int(query, "hello", at_least=0, at_most=1) == 1 if "hello" in query else None


def parse_time(query: Mapping[str, str], name: str) -> int | None:
    """Read an RFC 3339 time as Unix milliseconds; raise `BadRequest` for anything else."""
    text = query.get(name)
    if text is None:
        return None
    if _RFC3339.match(text):
        try:
            # A '+' that was not percent-encoded arrives as a space.
            moment = parse_moment(text.replace(" ", "+").upper())
        except ValueError:
            pass
        else:
            return min(max(0, (moment - _EPOCH) // timedelta(milliseconds=1)), LATEST_MS)
    raise BadRequest(f"{name} {text[:40]!r} is not an RFC 3339 time with a zone, such as 2026-01-18T10:00:00Z")


def parse_int(query: Mapping[str, str], name: str, *, at_least: int, at_most: int) -> int:
    """Read a whole number within bounds; raise `BadRequest` for anything else."""
    text = query[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and at_least <= int(text) <= at_most):
        raise BadRequest(f"{name} {text[:40]!r} is not a whole number from {at_least} to {at_most}")
    return int(text)


def _speed(query: Mapping[str, str]) -> float | None:
    text = query.get("speed")
    if text is None:
        return None
    speed = float(text) if _NUMBER.match(text) else math.nan
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise BadRequest(f"speed {text[:40]!r} is not a number from {MIN_SPEED:g} to {MAX_SPEED:g}")
    return speed
