"""The ways in which a relay could follow the log live, behind one signature, so that they can be measured alike.

Each takes a connection and a callback that gets every stream sequence and the moment it arrived (`time.monotonic`: one
clock for all processes of a machine).
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DeliverPolicy, DiscardPolicy, RePublish, RetentionPolicy, StorageType, StreamConfig

from rounds import Catalogue, log_subject
from rounds.subjects import LIVE_SUBJECTS, LIVE_TEMPLATE, LOG_SUBJECTS

STREAM: Final = "ROUNDS"
MANY: Final = 512 * 1024
"""The default pending limit of nats-py; only the measurement of overflow sets a smaller one."""

OnRound = Callable[[int, float], None]
Follow = Callable[[Client, OnRound, int], Awaitable[None]]
"""``follow(nc, on_round, pending_limit)`` returns when the subscription is active in the server."""


async def republish(nc: Client, on_round: OnRound, pending_limit: int) -> None:
    """One plain subscription to what the stream republishes; no state in the server."""

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
    """The way that relays follow, at its simplest: `republish`, sequences checked, holes filled from the log first.

    What comes after a hole is dropped, since the log has it; the relay keeps it instead, and reads less.
    """

    def __init__(self, nc: Client, on_round: OnRound, *, poll_s: float) -> None:
        self._nc = nc
        self._on_round = on_round
        self._poll_s = poll_s
        self._head = 0
        self._wake = asyncio.Event()

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
                pass  # time to check for a lost tail
            self._wake.clear()
            with suppress(NatsError, TimeoutError):  # the connection is down; `wake` comes with the next one
                while self._nc.is_connected and await self._read_page():
                    pass

    async def _take(self, message: Msg) -> None:
        assert message.headers is not None
        sequence = int(message.headers["Nats-Sequence"])
        if sequence == self._head + 1:
            self._hand_on(sequence)
        elif sequence > self._head:
            self._wake.set()

    async def _read_page(self) -> bool:
        """Read some of what comes after the last round handed on; False when there was nothing."""
        sequences: list[int] = []
        ended = asyncio.Event()

        async def collect(message: Msg) -> None:
            headers = message.headers or {}
            if message.data:
                sequences.append(int(headers["Nats-Sequence"]))
            else:
                ended.set()  # 204, the end of the batch; or 404, nothing there

        inbox = self._nc.new_inbox()
        subscription = await self._nc.subscribe(inbox, cb=collect)
        request = {"seq": self._head + 1, "batch": 1000, "next_by_subj": LOG_SUBJECTS}
        await self._nc.publish(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(request).encode(), reply=inbox)
        async with asyncio.timeout(1):
            await ended.wait()
        await subscription.unsubscribe()
        for sequence in sequences:
            if sequence > self._head:  # the subscription may have delivered it by now
                self._hand_on(sequence)
        return bool(sequences)

    def _hand_on(self, sequence: int) -> None:
        self._head = sequence
        self._on_round(sequence, time.monotonic())


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
