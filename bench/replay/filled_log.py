"""A log full of known rounds, so that every byte that a replay must send is known beforehand."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final

from bench._nats import NatsServer
from bench._rounds import endless
from bench.fanout.publisher import Publisher
from bench.fanout.wire import Wire
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import LogInfo, open_log
from rounds import Cursor, Round, log_subject
from rounds.round import with_cursor

_BATCH: Final = 2000
_STORED_S: Final = 60.0


class FilledLog:
    """The log of one nats-server, which nothing else writes to: sequence n holds round n of `endless`."""

    def __init__(self, nats: NatsServer) -> None:
        self._url = nats.url
        self._rounds = endless()
        self._publisher = Publisher(nats.port)
        self.epoch = asyncio.run(_info(nats.url)).epoch
        self.count = 0

    def fill(self, count: int) -> None:
        """Store `count` more rounds; return when the log has them."""
        asyncio.run(_store(self._url, itertools.islice(self._rounds, count)))
        self.count += count
        self.wait_stored()

    def publish(self, count: int) -> None:
        """Publish `count` more rounds; does not wait until they are stored."""
        self._publisher.publish(list(itertools.islice(self._rounds, count)))
        self.count += count

    def wait_stored(self) -> None:
        """Wait until the log has all that was published."""
        deadline = time.monotonic() + _STORED_S
        while (last := asyncio.run(_info(self._url)).last) != self.count:
            if last > self.count or time.monotonic() > deadline:
                raise SystemExit(f"the log has {last} rounds where {self.count} were published")

    def cursor(self, sequence: int) -> str:
        return str(Cursor(self.epoch, sequence))

    def stream(self, wire: Wire, *, after: int, count: int) -> bytes:
        """All that a client of a protocol is sent for `count` rounds after a sequence, without what comes before."""
        rounds = itertools.islice(endless(first_id=1), after, after + count)
        return b"".join(self._message(wire, number, round_) for number, round_ in enumerate(rounds, after + 1))

    def _message(self, wire: Wire, sequence: int, round_: Round) -> bytes:
        data = with_cursor(round_.to_json(), self.cursor(sequence))
        if wire.name == "WebSocket":
            return b"\x81\x7e%b%b" % (len(data).to_bytes(2, "big"), data)
        block = b"id: %b\ndata: %b\n\n" % (self.cursor(sequence).encode(), data)
        return b"%x\r\n%b\r\n" % (len(block), block)


async def _store(url: str, rounds: Iterator[Round]) -> None:
    async with connect(LogSettings(url=url), name="bench") as nc:
        stream = nc.client.jetstream()
        while batch := list(itertools.islice(rounds, _BATCH)):
            *others, last = batch
            for round_ in others:
                await nc.client.publish(log_subject(round_.game_slug), round_.to_json())
            # The server drops what it cannot store in time, so wait for each batch.
            await stream.publish(log_subject(last.game_slug), last.to_json())


async def _info(url: str) -> LogInfo:
    settings = LogSettings(url=url)
    async with connect(settings, name="bench") as nc:
        return await open_log(nc, settings)
