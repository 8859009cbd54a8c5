"""All connections of a port: their limits, their clock, and one timer for what time does to them.

Owns when a connection is looked at. The clock counts the time in which this process runs: after a stall no peer is
ended for an answer that waits in its socket. Does not know frames or services.
Why: docs/adr/0020-stalls-stop-the-clock.md
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from relay.http2.connection_care import Cared, Leaving, look_at
from relay.http2.http2_frames import Http2Code, SettingId, settings_frame
from relay.http2.http2_limits import Http2Limits
from relay.http2.peer_budget import FaultReason
from relay.http2.send_turns import SendTurns

log = structlog.get_logger()

_LOOK_S: Final = 2.0
"""Time between two looks at a connection, at most."""
_SHARE: Final = 1 / 4
"""The same, of the shortest time that is kept."""
_SLOTS: Final = 32
"""Over how many moments of it connections are spread: 15,000 are looked at 500 at a time."""
_PONG_S: Final = 0.2
"""Time that an answer to a ping waits, then for data to go with. Peers give it a second or more."""
_STOP_STEPS: Final = 50
"""Looks at the connections of a port that stops."""
_STALL_S: Final = 1.0
"""Later than this, the process stood still."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a connection was ended because of its peer."""

    code: Http2Code
    text: str  # as it was sent to the peer
    address: object  # the peer's, as the transport has it
    streams: int  # that were open
    reason: FaultReason


class Http2Connections:
    """The connections of one port. `run` serves them while they are open."""

    def __init__(
        self,
        limits: Http2Limits,
        *,
        clock: Callable[[], float] | None = None,
        on_fault: Callable[[Fault], None] = lambda _fault: None,
    ) -> None:
        """Start without connections.

        Args:
            limits: Those of each connection.
            clock: Returns the time in seconds, of any start; by default that of the event loop.
            on_fault: Called when a connection is ended because of what its peer sent.
        """
        self.limits = limits
        self.on_fault = on_fault
        self.greeting: Final = settings_frame(
            {SettingId.MAX_CONCURRENT_STREAMS: limits.streams, SettingId.MAX_HEADER_LIST_SIZE: limits.header_bytes}
        )
        """Our settings, which each connection sends first, after the preface of its client."""
        self._clock = clock or _loop_time
        self._stalled_s = 0.0
        self._pongs: deque[tuple[float, SendTurns]] = deque()  # with the time at which each is released
        self._slots: tuple[set[Cared], ...] = tuple(set() for _ in range(_SLOTS))
        self._has_some = asyncio.Event()
        self._places = itertools.cycle(range(_SLOTS))
        times = (limits.preface_s, limits.idle_s, limits.keepalive_s, limits.keepalive_timeout_s, limits.end_s)
        self._tick_s = min(_LOOK_S, min(times) * _SHARE) / _SLOTS

    def now(self) -> float:
        """Return the time in which this process ran."""
        return self._clock() - self._stalled_s

    def age_s(self) -> float:
        """Choose the age at which a new connection is asked to leave."""
        return self.limits.age_s * random.uniform(5 / 6, 1)  # noqa: S311 - spreads ends, keeps no secret

    def add(self, connection: Cared) -> int:
        """Look at a connection from now on; return its place, for `remove`."""
        place = next(self._places)
        self._slots[place].add(connection)
        self._has_some.set()
        return place

    def hold_pong(self, turns: SendTurns) -> None:
        """Release the answer to a ping later: with the next data after 0.2 s, or alone within half a second."""
        self._pongs.append((self.now() + _PONG_S, turns))

    def remove(self, connection: Cared, place: int) -> None:
        """Look at a connection no more."""
        self._slots[place].discard(connection)

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    async def run(self) -> None:
        """Look at each connection every two seconds, or more often, until cancelled; without any, at nothing."""
        due_at = self._clock()
        for number in itertools.count():
            if not number % _SLOTS and not self:
                self._has_some.clear()
                await self._has_some.wait()
                due_at = self._clock()
            due_at += self._tick_s
            await asyncio.sleep(due_at - self._clock())
            if (late_s := self._clock() - due_at) > _STALL_S:
                self._stalled_s += late_s
                due_at += late_s
            self._release_pongs()
            self._look(number % _SLOTS)

    def look(self) -> None:
        """Look at all connections now."""
        self._release_pongs()
        for place in range(_SLOTS):
            self._look(place)

    async def leave(self) -> None:
        """Ask the peers of all connections to open no more streams, over as long as a look at all of them takes."""
        for slot in self._slots:
            for connection in [*slot]:
                if connection.leaving is Leaving.NO and connection.closed_at is None:
                    connection.leave(Leaving.ANNOUNCED)
            await asyncio.sleep(self._tick_s)

    async def stop(self, *, within_s: float) -> None:
        """Close all connections: each when it has no streams, the others when the time is over."""
        for step in range(_STOP_STEPS + 1):
            for connection in [connection for slot in self._slots for connection in slot]:
                if connection.closed_at is None and connection.leaving is not Leaving.FINAL:
                    connection.leave(Leaving.FINAL)
                if step == _STOP_STEPS or not connection.open_streams:
                    connection.close()
            if not self:
                return
            await asyncio.sleep(within_s / _STOP_STEPS)
        self.abort()

    def abort(self) -> None:
        """Cut all connections."""
        for slot in self._slots:
            for connection in [*slot]:
                connection.abort()

    def _release_pongs(self) -> None:
        now = self.now()
        while self._pongs and self._pongs[0][0] <= now:
            _, turns = self._pongs.popleft()
            turns.release_pong()
            if turns.pong is not None:
                self._pongs.append((now + _PONG_S, turns))

    def _look(self, place: int) -> None:
        now = self.now()
        for connection in [*self._slots[place]]:
            try:
                look_at(connection, now, self.limits)
            except Exception:
                log.exception("http2_connection_failed")
                connection.abort()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
