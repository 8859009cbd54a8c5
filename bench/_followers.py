"""The ways in which a relay could follow the log live, behind one signature, so that they can be measured alike.

Each takes a connection and a callback that gets every stream sequence and the moment it arrived (`time.monotonic`: one
clock for all processes of a machine).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DeliverPolicy, DiscardPolicy, RePublish, RetentionPolicy, StorageType, StreamConfig

from backends.log import LogUnavailable
from relay.item import LogEntry
from relay.log_reader import LogReader, entry_of
from relay.sequencer import Sequencer
from rounds import Catalogue, log_subject
from rounds.subjects import LIVE_SUBJECTS, LIVE_TEMPLATE, LOG_SUBJECTS

STREAM: Final = "ROUNDS"
MANY: Final = 512 * 1024
"""A pending limit that is not reached unless a measurement wants it to be: the default of nats-py."""

OnRound = Callable[[int, float], None]
Follow = Callable[[Client, OnRound, int], Awaitable[None]]
"""``follow(nc, on_round, pending_limit)`` returns when the server knows the subscription."""


async def republish(nc: Client, on_round: OnRound, pending_limit: int) -> None:
    """One plain subscription to what the stream republishes; keeps nothing in the server."""

    async def take(message: Msg) -> None:
        headers = message.headers
        assert headers is not None
        on_round(int(headers["Nats-Sequence"]), time.monotonic())

    await nc.subscribe(LIVE_SUBJECTS, cb=take, pending_msgs_limit=pending_limit)
    await nc.flush()


async def ordered(nc: Client, on_round: OnRound, pending_limit: int) -> None:
    """One ordered consumer of nats-py for all games."""
    await _consume(nc, LOG_SUBJECTS, on_round, pending_limit)


async def ordered_per_game(nc: Client, on_round: OnRound, pending_limit: int) -> None:
    """One ordered consumer of nats-py for each game."""
    for slug in sorted(Catalogue.load().slugs):
        await _consume(nc, log_subject(slug), on_round, pending_limit)


async def _consume(nc: Client, subject: str, on_round: OnRound, pending_limit: int) -> None:
    async def take(message: Msg) -> None:
        on_round(message.metadata.sequence.stream, time.monotonic())

    await nc.jetstream().subscribe(
        subject,
        stream=STREAM,
        ordered_consumer=True,
        cb=take,
        deliver_policy=DeliverPolicy.NEW,
        pending_msgs_limit=pending_limit,
    )


WAYS: Final[Mapping[str, Follow]] = {
    "republish, one subscription": republish,
    "one ordered consumer": ordered,
    "ordered consumer per game": ordered_per_game,
}


class Repaired:
    """The way that relays follow: `republish`, every sequence checked, holes filled from the log before what is later.

    Made of the relay's own sequencer and log reader, on a subscription whose limits a measurement can choose.
    """

    def __init__(self, nc: Client, on_round: OnRound, *, head: int, poll_s: float) -> None:
        self._nc = nc
        self._on_round = on_round
        self._poll_s = poll_s
        self._sequencer = Sequencer(head, park_limit=10_000)
        self._reader = LogReader(nc, STREAM)
        self._wake = asyncio.Event()
        self.repaired = 0

    async def start(self, pending_limit: int) -> None:
        await self._nc.subscribe(LIVE_SUBJECTS, cb=self._take, pending_msgs_limit=pending_limit)
        await self._nc.flush()

    def wake(self) -> None:
        """Compare with the log now."""
        self._wake.set()

    async def run(self) -> None:
        """Repair until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._catch_up()
            except (LogUnavailable, NatsError):
                continue  # the connection is down; `wake` comes with the next one

    async def _take(self, message: Msg) -> None:
        assert message.headers is not None
        self._hand_on(self._sequencer.on_live(entry_of(message.headers, message.data)))
        if self._sequencer.behind:
            self._wake.set()

    async def _catch_up(self) -> None:
        tail = await self._reader.last_sequence()
        while self._sequencer.head < tail:
            page = await self._reader.page(self._sequencer.head + 1, limit=1000)
            self.repaired += len(page.entries)
            self._hand_on(self._sequencer.on_read(page.entries, covered_to=page.covered_to if page.entries else tail))

    def _hand_on(self, entries: Sequence[LogEntry]) -> None:
        now = time.monotonic()
        for entry in entries:
            self._on_round(entry.sequence, now)


async def make_stream(nc: Client, *, republished: bool) -> None:
    """Make the log as relays and ingest make it, with or without republishing."""
    await nc.jetstream().add_stream(
        StreamConfig(
            name=STREAM,
            subjects=[LOG_SUBJECTS],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            duplicate_window=120,
            num_replicas=1,
            allow_direct=True,
            republish=RePublish(src=LOG_SUBJECTS, dest=LIVE_TEMPLATE) if republished else None,
        )
    )
