"""What the clients of all protocols have in common: a place that they keep, and how they come back with it.

Owns the loop of connecting, reading and coming back, and the behaviours: slow readers, and clients that leave and
return. A protocol gives `connection`, which yields what it is sent.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from tests.faults.plan import GAMES, ClientPlan
from tests.faults.values import Chain, Entry, Gap, Item, Key, Place, Selection, View

_RETRY_S: Final = 0.3
_SLOW_EVERY: Final = 150
_SLOW_S: Final = 3.0
_LEAVE_EVERY: Final = 80
_AWAY_S: Final = 3.0
_HURRY_S: Final = 0.2
SILENCE_S: Final = 8.0
"""Silence after which a client gives up a connection: four heartbeats."""


class Ended(Exception):
    """The relay ended the connection in the protocol's way: a close frame, a last event, a status."""

    def __init__(self, reason: str, cursor: str | None = None, retry_ms: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.cursor, self.retry_ms = reason, cursor, retry_ms


class Opened:
    """The connection is open: what is committed from now on is due."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client connects: a relay behind its wires."""

    url: str
    grpc: str


@dataclass(frozen=True, slots=True)
class World:
    """What clients know of the installation."""

    key: str
    address: Callable[[random.Random], Address]
    """Where a load balancer sends the next connection."""
    begun: Callable[[], int]
    """The number of the newest transaction that was begun."""
    head: Callable[[], str]
    """A recent cursor, for clients that ask for what comes after it."""


class Client(ABC):
    """One client. `view` is what it asked for and received."""

    failures = (OSError, TimeoutError, aiohttp.ClientError, EOFError)
    """What ends a connection without the relay's own end."""

    def __init__(self, plan: ClientPlan, world: World) -> None:
        selection = Selection(frozenset(plan.games or GAMES), plan.min_point, frozenset(plan.colors))
        self.plan = plan
        self.world = world
        self.random = random.Random(plan.seed)
        self.view = View(plan.name, selection, receives_gaps=True)
        self.cursor: str | None = None
        """Its place, to be sent with the next connection."""
        self.is_open = False
        self.hurries = False
        """Set at the end of a run: a slow client reads as fast as it can."""
        self.ends: Counter[str] = Counter()
        self.placeless = 0
        """How often it came back without a place after an orderly end."""
        self.wrong: list[str] = []
        """What it was sent and could not read."""
        self.received = 0
        """Rounds, over all connections."""

    async def run(self) -> None:
        """Connect, read, come back, until cancelled."""
        if self.plan.begin == "head":
            self.cursor = self.world.head()
        elif self.plan.begin == "beginning":
            self.cursor = self.world.head().rpartition("-")[0] + "-0"
        while True:
            delay_s = _RETRY_S * self.random.random()
            try:
                await self._connect_once()
                self.ends["left"] += 1
                delay_s = _AWAY_S * self.random.random()
            except Ended as end:
                self.ends[end.reason] += 1
                self.cursor = end.cursor or self.cursor
                if end.cursor:
                    self._take(Place(sequence_of(end.cursor)))
                self.placeless += self.cursor is None and self.is_open
                delay_s += (end.retry_ms or 0) / 1000
            except msgspec.DecodeError as error:
                self.wrong.append(str(error))
            except self.failures:
                self.ends["cut"] += 1
            finally:
                self.is_open = False
            await asyncio.sleep(min(delay_s, _HURRY_S) if self.hurries else delay_s)

    async def _connect_once(self) -> None:
        """Read one connection; return when the client itself leaves."""
        leaves_after = self.random.randint(0, 2 * _LEAVE_EVERY)
        continues = bool(self.view.chains) and self.cursor is not None
        async with aclosing(self.connection(self.world.address(self.random), self.cursor)) as items:
            async for item in items:
                if isinstance(item, Opened):
                    self.is_open = True
                    if not continues:
                        after = sequence_of(self.cursor) if self.cursor else None
                        self.view.chains.append(Chain(after, live_after=self.world.begun()))
                    continue
                self._take(item)
                leaves_after -= isinstance(item, Entry)
                if self.hurries:
                    continue
                if self.plan.behaviour == "returning" and leaves_after < 0:
                    return
                if self.plan.behaviour == "slow" and self.received % _SLOW_EVERY == _SLOW_EVERY - 1:
                    await asyncio.sleep(_SLOW_S)

    def _take(self, item: Item) -> None:
        self.received += isinstance(item, Entry)
        if self.view.chains:
            self.view.chains[-1].items.append(item)

    @abstractmethod
    def connection(self, address: Address, after: str | None) -> AsyncGenerator[Item | Opened, None]:
        """Open a stream and yield what it sends, `Opened` first. Sets `cursor` with every item.

        Raises:
            Ended: The relay ended it.
        """

    def entry(self, fields: dict[str, Any]) -> Entry:
        """Read a round, and keep its cursor."""
        self.cursor = cursor = fields["cursor"]
        key = Key(fields["game_slug"], int(fields["round_id"]))
        return Entry(sequence_of(cursor), key, msgspec.json.decode(fields["extras"]))

    def gap(self, after: str, to: str, reason: str) -> Gap:
        """Read a gap, and keep the cursor after it."""
        self.cursor = to
        return Gap(sequence_of(after), sequence_of(to), reason)

    def place(self, cursor: str) -> Place:
        """Keep a place that came without a round."""
        self.cursor = cursor
        return Place(sequence_of(cursor))

    def begin(self, headers: Mapping[str, str], after: str | None) -> Item | None:
        """Keep the place at which a stream without a cursor begins, if the head of the answer has it."""
        head = headers.get("head-cursor")
        return self.place(head) if after is None and head else None

    def query(self, after: str | None) -> dict[str, str]:
        """The query of WebSocket and SSE."""
        parts: dict[str, str] = {}
        if len(self.plan.games) > 1:
            parts["games"] = ",".join(self.plan.games)
        if self.plan.min_point is not None:
            parts["min_point"] = f"{self.plan.min_point:g}"
        if self.plan.colors:
            parts["colors"] = ",".join(self.plan.colors)
        if after is not None:
            parts["after"] = after
        return parts

    @property
    def path(self) -> str:
        return f"/{self.plan.games[0]}" if len(self.plan.games) == 1 else ""

    def event(self, fields: dict[str, Any]) -> Item | None:
        """Read an event of WebSocket or SSE; None for those that change no place."""
        match fields["event"]:
            case "gap":
                return self.gap(fields["from"], fields["to"], fields["reason"])
            case "hello" | "subscribed" | "pong":
                return None
            case _ if (cursor := fields.get("cursor")) is not None:
                return self.place(cursor)
        return None


def sequence_of(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])
