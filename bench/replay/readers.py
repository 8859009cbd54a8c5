"""Ways to read a stream from its beginning, without a relay: what a replay could use.

Each runs in a process of its own and returns seconds for a number of rounds; all of them check every sequence.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

import nats
import uvloop
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bench._followers import STREAM
from relay.history.reading.pages import PAGE
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from rounds.subjects import LOG_SUBJECTS

_PENDING_MSGS: Final = 1 << 20
_PENDING_BYTES: Final = 1 << 30
_FETCH: Final = 500
_PATIENCE_S: Final = 60.0

Read = Callable[[str, int], Awaitable[None]]
"""``read(nats_url, count)`` returns when rounds 1 to `count` have come."""


class _Counter:
    """Takes rounds, which must come in the order of the log, each once."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._last = 0
        self.done = asyncio.Event()

    def take(self, sequence: int) -> None:
        if sequence != self._last + 1:
            raise SystemExit(f"round {sequence} came after round {self._last}")
        self._last = sequence
        if sequence == self._count:
            self.done.set()


async def log_reader(url: str, count: int) -> None:
    """The relay's own: batched direct get, without the message objects of nats-py."""
    counter = _Counter(count)
    async with LogReader(LogSettings(url=url)) as reader:
        last = 0
        while last < count:
            page = await reader.page(last + 1, limit=min(PAGE, count - last))
            for entry in page.entries:
                counter.take(entry.sequence)
            last = page.entries[-1].sequence


async def batched_direct_get(url: str, count: int) -> None:
    """The same requests, through a subscription of nats-py."""
    counter = _Counter(count)
    nc = await nats.connect(url)
    inbox = nc.new_inbox()
    ended = asyncio.Event()

    async def take(message: Msg) -> None:
        if message.data:
            assert message.headers is not None
            counter.take(int(message.headers["Nats-Sequence"]))
        else:
            ended.set()

    await nc.subscribe(inbox, cb=take, pending_msgs_limit=_PENDING_MSGS, pending_bytes_limit=_PENDING_BYTES)
    for start in range(1, count + 1, PAGE):
        ended.clear()
        request = {"seq": start, "batch": min(PAGE, count + 1 - start), "next_by_subj": ">"}
        await nc.publish(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(request).encode(), reply=inbox)
        await ended.wait()
    await nc.close()


async def direct_get(url: str, count: int) -> None:
    """One request and answer per round, as nats-py offers it."""
    counter = _Counter(count)
    nc = await nats.connect(url)
    stream = nc.jetstream()
    for sequence in range(1, count + 1):
        message = await stream.get_msg(STREAM, seq=sequence, direct=True)
        assert message.seq is not None
        counter.take(message.seq)
    await nc.close()


async def push_consumer(url: str, count: int) -> None:
    """A consumer that the server pushes, with flow control and without acks."""
    counter = _Counter(count)
    nc = await nats.connect(url)

    async def take(message: Msg) -> None:
        if not counter.done.is_set():
            counter.take(message.metadata.sequence.stream)

    await nc.jetstream().subscribe(
        LOG_SUBJECTS,
        stream=STREAM,
        cb=take,
        manual_ack=True,
        config=_config(flow_control=True, idle_heartbeat=5),
        pending_msgs_limit=_PENDING_MSGS,
        pending_bytes_limit=_PENDING_BYTES,
    )
    await counter.done.wait()
    await nc.close()


async def fetched(url: str, count: int) -> None:
    """A consumer that is pulled in batches."""
    counter = _Counter(count)
    nc = await nats.connect(url)
    subscription = await nc.jetstream().pull_subscribe(LOG_SUBJECTS, stream=STREAM, config=_config())
    while not counter.done.is_set():
        for message in await subscription.fetch(_FETCH, timeout=10):
            if not counter.done.is_set():
                counter.take(message.metadata.sequence.stream)
    await nc.close()


def _config(**more: Any) -> ConsumerConfig:
    return ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=1,
        mem_storage=True,
        **more,
    )


WAYS: Final[Mapping[str, tuple[Read, float]]] = {
    "`roundlog.reader`, batched direct get": (log_reader, 1.0),
    "nats-py, batched direct get": (batched_direct_get, 0.1),
    "nats-py, push consumer": (push_consumer, 0.1),
    "nats-py, pull consumer, `fetch`": (fetched, 0.1),
    "nats-py, one direct get per round": (direct_get, 0.005),
}
"""Each way, and the share of the log that it reads."""


def measure(way: str, url: str, count: int) -> tuple[float, float]:
    """Read in a process of its own, on the cores that this one is on; return seconds and CPU seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(way, url, count, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        seconds, cpu = ours.recv()
        return float(seconds), float(cpu)
    except EOFError:
        raise SystemExit(f"{way} failed") from None
    finally:
        process.join()


def _main(way: str, url: str, count: int, pipe: Connection) -> None:
    pipe.send(uvloop.run(_timed(WAYS[way][0], url, count)))


async def _timed(read: Read, url: str, count: int) -> tuple[float, float]:
    begun, cpu = time.monotonic(), time.process_time()
    async with asyncio.timeout(_PATIENCE_S):
        await read(url, count)
    return time.monotonic() - begun, time.process_time() - cpu
