"""Let live rounds wait in the kernel until one comes that somebody watches: the process is not woken for the others.

Owns when the live subscription is read: as rounds come, or together with the next round of a watched game, which a
second subscription brings too. That one only wakes: its rounds are not used, and nothing depends on it but how soon
rounds are read, which is every 0.1 s without it. Every round is still read, in order, from the one subscription to all
games. Why: docs/adr/0046-wake-for-what-is-watched.md
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog

from relay.live.following.reading_rule import ReadingRule
from roundlog.backoff import Backoff
from roundlog.client.connection import connect
from roundlog.entry import LogEntry
from roundlog.live import LiveGames, LiveSubscription
from roundlog.log_errors import LogError, LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.stream import last_sequence
from roundlog.tasks import cancel_and_wait

log = structlog.get_logger()

_TAKE_S: Final = 0.1
"""How long rounds may wait. Only rounds that nobody watches wait as long; what asks for them reads them first."""
_PAUSE_S: Final = (1.0, 60.0)
"""Until the second subscription is tried again. Without it, each round is read as it comes."""
_TAKES: Final = 4
"""Reads of 64 KB in one turn of the event loop."""
_STALE: Final = 20
"""Wake-ups for games that nobody watches any more, until their subscriptions are ended."""


class Wakeups:
    """Decides for one live subscription how it is read. Works while `running`."""

    def __init__(self, settings: LogSettings, live: LiveSubscription, watched: Collection[str]) -> None:
        """`watched`: names of the games that links are subscribed to; a view, which changes with them."""
        self._settings = settings
        self._live = live
        self._watched = watched
        self._rule = ReadingRule()
        self._clock = asyncio.get_running_loop().time
        self._change = asyncio.Event()
        self._is_wanted = False  # that rounds wait
        self._names = frozenset[str]()  # what wakes us
        self._error: LogError | None = None  # of the second subscription
        self._timer: asyncio.TimerHandle | None = None
        self._taken_at = 0.0
        self._is_look = False  # a read that no wake-up caused
        self._seen = 0  # newest sequence that was read
        self._announced = 0  # newest sequence that has woken us
        self._found = 0  # newest sequence of a watched game that a look has found
        self._suspect = 0  # the same, a while ago: should have woken us by now
        self._stale = 0  # wake-ups for games that nobody watches
        self._asking = 0  # requests whose answers come on the connection of the live subscription

    @property
    def is_on(self) -> bool:
        """Whether rounds wait for one that is watched."""
        return self._timer is not None

    # --- reading -----------------------------------------------------------------------------------------------

    def on_read(self, entries: list[LogEntry]) -> None:
        """Note rounds that the live subscription has brought."""
        self._seen = entries[-1].sequence
        if self._timer is None:
            if not self._is_wanted and self._live.can_be_held:
                is_watched = any(entry.game in self._watched for entry in entries)
                if self._rule.is_worth_waiting(self._clock(), is_watched=is_watched):
                    self._is_wanted = True
                    self._change.set()
            return
        self._rule.count(rounds=len(entries))
        if self._is_look:
            self._found = max((e.sequence for e in entries if e.game in self._watched), default=self._found)
        self._hold()

    @contextmanager
    def answers_come(self) -> Iterator[None]:
        """Read everything as it comes while the block runs: an answer is to come on the same connection."""
        self._asking += 1
        self._live.release()
        try:
            yield
        finally:
            self._asking -= 1
            if self._timer is not None:
                self._hold()

    def look(self) -> None:
        """Read what has come, if it waits: what is known of the log is then as new as if it had not waited."""
        if self._timer is not None:
            self._is_look = True
            self._take()
            self._is_look = False

    def on_watched(self) -> None:
        """Note that a game is watched that was not: rounds do not wait until its rounds wake us."""
        if self._timer is not None and not self._names.issuperset(self._watched):
            self._read_as_they_come()
            self._change.set()

    def reset(self) -> None:
        """Read rounds as they come: another log is followed, or none, or the connection was lost."""
        self._read_as_they_come()
        self._is_wanted = False
        self._change.set()

    def _on_wakeup(self, entries: list[LogEntry]) -> None:
        """Take rounds of the second subscription. Runs inside the reading of its socket."""
        before, self._announced = self._announced, (newest := entries[-1].sequence)
        if self._timer is None:
            return
        if newest <= before:  # of another log, or a shorter one
            self._seen = 0
        self._rule.count(wakeups=1)
        if entries[-1].game not in self._watched:
            self._stale += 1
            if self._stale == _STALE:
                self._change.set()
        self._take()
        if self._seen < newest:  # it came a moment before the same round on the other connection
            self._live.release()

    def _take(self) -> None:
        self._taken_at = self._clock()
        for _ in range(_TAKES):
            if not self._live.take():
                return
        asyncio.get_running_loop().call_soon(self._take)

    def _let_wait(self) -> None:
        self._seen = self._announced = self._found = self._suspect = 0
        self._rule.begin(self._clock())
        self._tick_later()
        self._hold()

    def _hold(self) -> None:
        if not self._asking and self._seen >= self._announced:
            self._live.hold()

    def _read_as_they_come(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._live.release()

    def _tick_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TAKE_S, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        if self._suspect > self._announced:
            self._error = WakeupsLate()
            self._change.set()
        elif not self._rule.is_still_worth_it(now):
            self._is_wanted = False
            self._change.set()
        self._suspect = self._found
        if now - self._taken_at >= _TAKE_S / 2:
            self.look()
        self._tick_later()

    # --- the second subscription -------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Decide while the block runs."""
        task = asyncio.create_task(self._run(), name="wakeups")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def _run(self) -> None:
        backoff = Backoff(*_PAUSE_S)
        while True:
            await self._change.wait()
            self._change.clear()
            if not self._is_wanted:
                continue
            try:
                await self._wake_for_watched()
            except LogError as error:
                wait_s = backoff.next_s()
                log.warning("wakeups_unavailable", error=str(error), retry_s=round(wait_s, 1))
                self._read_as_they_come()
                await asyncio.sleep(wait_s)
            else:
                backoff.reset()
            finally:
                self._read_as_they_come()
                self._rule.begin(self._clock())
                self._is_wanted, self._error = False, None

    async def _wake_for_watched(self) -> None:
        """Let rounds wait while they should; raise LogError when the second subscription fails."""
        async with connect(
            self._settings, name="stream-relay wakeups", on_disconnected=self._on_disconnected, reconnect=False
        ) as connection:
            games = await LiveGames.open(connection, self._on_wakeup)
            while self._is_wanted and self._error is None:
                self._change.clear()
                names = frozenset(self._watched)
                self._names &= names  # the others wake us no more from here on
                await games.follow(names)
                await last_sequence(connection, self._settings)
                games.confirm()
                self._names = names
                if names.issuperset(self._watched) and self._is_wanted:
                    self._stale = 0
                    if self._timer is None:
                        self._let_wait()
                    await self._change.wait()
            self._read_as_they_come()
            if self._error is not None:
                raise self._error

    async def _on_disconnected(self) -> None:
        if self._error is None:
            self._error = LogUnavailable("the connection that wakes for watched games was lost")
        self._read_as_they_come()
        self._change.set()


class WakeupsLate(LogError):
    """Rounds of watched games were found that have woken nobody."""

    def __str__(self) -> str:
        return "rounds of watched games came on one connection to NATS and not on the other"
