"""One timer wheel for all links: heartbeats, pings and ages, without a timer or a task per link.

Owns when a link is due. Links are spread over the interval, so that 5,000 idle links cost a few hundred small writes a
second and are never due together. The wheel counts the time in which this process runs: after a stall (a suspend, a
live migration, SIGSTOP) it continues where it was, so that each link gets one heartbeat, with the usual time to answer,
and links that have become too old end one after another. Does not know what a heartbeat looks like.
Why: docs/adr/0020-stalls-stop-the-clock.md
"""

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Final

import structlog

from relay.live.link import CloseReason, Link

log = structlog.get_logger()

_SLOTS: Final = 64
"""Over how many moments of the interval new links are spread."""
_TICK_S: Final = 0.25
"""The most between two moments at which links are served: how exactly an age is kept."""
_STALL_S: Final = 1.0
"""A wheel that is later than this stood still with its process. Less is made up for, so that intervals are kept."""
_STALL_SHARE: Final = 1 / 4
"""The same, of the interval, where that is short."""
_PER_TURN: Final = 500
"""Links served in one turn of the loop: a few milliseconds."""


class _Entry:
    """A link on the wheel."""

    __slots__ = ("beat_at", "interval_s", "link", "number")

    def __init__(self, link: Link, interval_s: float, beat_at: float) -> None:
        self.link = link
        self.interval_s = interval_s
        self.beat_at = beat_at  # loop time
        self.number = 0  # of its bucket


class Heartbeats:
    """Calls `Link.heartbeat` once per interval and ends links that are too old or do not answer."""

    def __init__(
        self,
        *,
        interval_s: float,
        clock: Callable[[], float] | None = None,
        on_stall: Callable[[float], None] | None = None,
    ) -> None:
        """Start without links.

        Args:
            interval_s: Time between two heartbeats of a link.
            clock: Returns the time in seconds, of any start; by default that of the event loop.
            on_stall: Called after a stall of the process, with its seconds.
        """
        self._interval_s = interval_s
        self._clock = clock or _loop_time
        self._on_stall = on_stall
        self._tick_s = min(interval_s / _SLOTS, _TICK_S)
        self._stall_s = min(_STALL_S, interval_s * _STALL_SHARE)
        self._entries: dict[Link, _Entry] = {}
        self._buckets: dict[int, set[_Entry]] = {}
        self._number = 0  # of the next bucket
        self._due_at: float | None = None  # when the next bucket is served; None: the wheel has not started
        self._places = itertools.cycle(range(_SLOTS, 0, -1))  # the first of few links is not served at once

    def add(self, link: Link, *, interval_s: float | None = None) -> None:
        """Serve a link from now on, until it is removed or has been ended.

        `interval_s`: Time between its heartbeats, if that is shorter than the time of all.
        """
        interval_s = min(interval_s or self._interval_s, self._interval_s)
        first_s = interval_s * next(self._places) / _SLOTS
        self._entries[link] = entry = _Entry(link, interval_s, self._clock() + first_s)
        self._put(entry)

    def remove(self, link: Link) -> None:
        """Serve a link no more; ignore one that is not served."""
        entry = self._entries.pop(link, None)
        if entry is not None and (bucket := self._buckets.get(entry.number)) is not None:
            bucket.discard(entry)

    async def run(self) -> None:
        """Turn the wheel until cancelled."""
        while True:
            due_at = self.turn()
            await asyncio.sleep(due_at - self._clock())

    def turn(self) -> float:
        """Serve the links that are due; return at which time to call this again."""
        now = self._clock()
        due_at = self._started_at(now)
        if (late_s := now - due_at) >= self._stall_s:
            if late_s >= _STALL_S:
                log.warning("process_stalled", stalled_s=round(late_s, 1), links=len(self._entries))
                if self._on_stall is not None:
                    self._on_stall(late_s)
            due_at = self._due_at = now - self._stall_s
        served = 0
        while due_at <= now:
            while bucket := self._buckets.get(self._number):
                if served == _PER_TURN:
                    return now
                self._serve(bucket.pop(), now)
                served += 1
            self._buckets.pop(self._number, None)
            self._number += 1
            due_at = self._due_at = due_at + self._tick_s
        return due_at

    def _serve(self, entry: _Entry, now: float) -> None:
        link = entry.link
        if link.ended is None:
            try:
                self._beat(entry, now)
            except Exception:
                log.exception("link_failed", link=link.id)
                link.cut(CloseReason.FAILED)
        if link.ended is not None:
            self._entries.pop(link, None)
        elif self._entries.get(link) is entry:
            self._put(entry)

    def _beat(self, entry: _Entry, now: float) -> None:
        link = entry.link
        if now >= link.expires_at:
            link.end(CloseReason.MAX_AGE)
        elif now + self._tick_s / 2 >= entry.beat_at:
            entry.beat_at = now + entry.interval_s
            if not link.heartbeat():
                link.end(CloseReason.UNRESPONSIVE)

    def _put(self, entry: _Entry) -> None:
        """Put a link where it is due next, for a heartbeat or because of its age."""
        wait_s = min(entry.beat_at, entry.link.expires_at) - self._started_at(self._clock())
        entry.number = self._number + max(1, math.ceil(wait_s / self._tick_s))
        self._buckets.setdefault(entry.number, set()).add(entry)

    def _started_at(self, now: float) -> float:
        """Return when the next bucket is due; the wheel starts when it is first used."""
        if self._due_at is None:
            self._due_at = now
        return self._due_at


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
