"""Replays of a log in a list, for a client that takes data when a test says so. Tests control each loop turn."""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self, cast

from relay.history.history import History
from relay.history.reading.payer import RELAY, Payer
from relay.history.replay import Replay
from relay.history.start import Start
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.encode import SseBlock
from relay.live.hub import Hub
from relay.live.link import Disconnect, Link
from relay.live.ring import Ring
from relay.turns import Turns
from roundlog.entry import LogEntry, Page
from rounds import Filter
from tests.relay.live.recording_link import NeverEnded
from tests.resume.log_writer import TEN_O_CLOCK_MS, make_stored
from tests.resume.memory_log import MemoryLog

HIGH_WATER: Final = 1 << 16
"""More unsent bytes mean that a client does not keep up, as for transports of asyncio."""
_ROUND: Final = re.compile(rb"id: ([a-z0-9]+)-([0-9]+)\ndata: (.+)\n\n")


class LateLog(MemoryLog):
    """Answers some turns of the loop after a request; the answer may be out of date by then."""

    delays: Iterator[int] = iter(())

    async def page(self, start: int, *, limit: int, game: str | None = None) -> Page:
        await turns(next(self.delays, 0))
        page = await super().page(start, limit=limit, game=game)
        await turns(next(self.delays, 0))
        return page


class Client(Link):
    """A link and its transport in one; `came` is all that was written: rounds and events, in order."""

    __slots__ = ("_taken", "came", "is_awaited", "most_unsent", "taking", "times_given_up", "unsent")

    def __init__(self, *, taking: bool = True) -> None:
        self.came: list[dict[str, Any]] = []
        self.unsent = self.most_unsent = 0
        self.taking = taking
        self.is_awaited = False  # whether the replay waits for us to take something
        self.times_given_up = 0  # so often it waited no longer
        self._taken = asyncio.Event()
        super().__init__(self, SseBlock(chunked=False), NeverEnded(), max_age_s=60, drain=self._until_taken)
        self.receives_events = True

    # --- as a transport ------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        for epoch, sequence, text in _ROUND.findall(data):
            self.came.append({"epoch": epoch.decode(), "sequence": int(sequence), "id": json.loads(text)["round_id"]})
        if not self.taking:
            self.unsent += len(data)
            self.most_unsent = max(self.most_unsent, self.unsent)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """There is no connection."""

    def take(self) -> None:
        """Read everything that waits."""
        self.unsent = 0
        self._taken.set()

    async def _until_taken(self) -> None:
        while self.unsent > HIGH_WATER:
            self._taken.clear()
            self.is_awaited = True
            try:
                await self._taken.wait()
            except asyncio.CancelledError:
                self.times_given_up += 1
                raise
            finally:
                self.is_awaited = False

    # --- as a link -----------------------------------------------------------------------------------------------

    def heartbeat(self) -> bool:
        return True

    def send_event(self, event: Mapping[str, object]) -> None:
        self.came.append(dict(event))

    def write_disconnect(self, disconnect: Disconnect) -> None:
        """The client has left."""

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return [message for message in self.came if "id" in message]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        return [message for message in self.came if message.get("event") == "gap"]


class Rig:
    """A log, and a relay that follows it: nothing happens between them but by a call."""

    def __init__(self, *, ring_rounds: int = 5, unsent_bytes: int = 1 << 30, delays: Iterable[int] = ()) -> None:
        self.log = LateLog()
        self.log.delays = iter(delays)
        self.hub = Hub(Ring(rounds_per_game=ring_rounds, bytes_per_game=1 << 20), unsent_bytes=unsent_bytes)
        self.epoch, self.head, self.number = "k1", 0, 0
        self.hub.begin(Bounds("k1", 1, 0))
        self.history = History(self.hub, cast("Any", self.log), Turns(), concurrent=2)
        self._unseen: list[LogEntry] = []

    @classmethod
    async def filled(cls, rounds: int) -> Self:
        """Make a log of so many rounds, and a relay that has seen all of them."""
        rig = cls()
        for _ in range(rounds):
            rig.store()
        rig.hear()
        while rig.hub.head.sequence < rounds:
            await turns(1)
        return rig

    def store(self, game: str = "crash", *, at_ms: int | None = None) -> int:
        """Store a round, or a correction, that the relay has not seen yet; return its number, which is unique."""
        self.head, self.number = self.head + 1, self.number + 1
        at_ms = TEN_O_CLOCK_MS + self.number * 1000 if at_ms is None else at_ms
        entry = LogEntry(self.head, game, make_stored(game, self.number, at_ms=at_ms).to_json())
        self.log.store(entry, at_ms=at_ms)
        self._unseen.append(entry)
        return self.number

    def store_other(self) -> None:
        """Store a message that is no round: the relay does not hear of it."""
        self.head += 1
        self.log.store_other(self.head)

    def hear(self) -> None:
        """Publish everything that was stored to the relay."""
        self.hub.publish(self._unseen)
        self._unseen = []

    def rebuild(self, *, is_noticed: bool = True) -> None:
        """Lose the log and create another one; the relay notices that, or it does at `notice_rebuilt`."""
        self.epoch, self.head, self._unseen = f"k{int(self.epoch[1:]) + 1}", 0, []
        self.log.entries.clear()
        self.log.others.clear()
        self.log.epoch, self.log.last_ever = self.epoch, 0
        if is_noticed:
            self.notice_rebuilt()

    def notice_rebuilt(self) -> None:
        self.hub.begin(Bounds(self.epoch, 1, 0))

    def lose_tail(self, end: int) -> None:
        """Lose everything after a sequence."""
        self.log.truncate(end)
        first = self.log.entries[0].sequence if self.log.entries else end + 1
        unheard, self._unseen = [entry for entry in self._unseen if entry.sequence <= end], []
        self.head = end
        self.hub.publish(unheard)
        self.hub.begin(Bounds(self.epoch, first, end))

    def join(self, client: Client, replay: Replay) -> None:
        self.hub.add(client, replay.wanted)

    def replay(
        self,
        client: Client,
        start: Start,
        *,
        games: tuple[str, ...] = ("crash",),
        filter_: Filter | None = None,
        payer: Payer = RELAY,
    ) -> Replay:
        return Replay(
            self.history,
            client,
            Subscription(frozenset(games), filter_ or Filter()),
            start,
            join=lambda replay: self.join(client, replay),
            finish=lambda _: None,
            payer=payer,
        )


async def turns(count: int) -> None:
    """Let the loop turn `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)
