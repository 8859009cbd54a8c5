"""A relay in a thread of its own, on uvloop as in production, that measures the CPU its loop uses between two turns.

CPU time of the loop's thread, not time: what the client, other tests and other processes do does not count.
"""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import uvloop

from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY
from auth.tokens import TokenSigner
from relay.config.sections import DrainSettings, GrpcSettings, HttpSettings
from relay.config.settings import Settings
from relay.serve import running_relay
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import log_subject
from tests.nats import NatsServer
from tests.relay.conftest import make_round, wait_ready

T = TypeVar("T")

DEADLINE_S: Final = 30.0
KEY_LINE: Final = f"X-API-Key: {DEMO_KEY}\r\n".encode()
_TICK_S: Final = 0.001
_QUIET_S: Final = 0.02
"""A loop that uses less than half of such a time has handled what it was sent. It has no event for that."""
_ROUNDS: Final = 2000


class Meter:
    """Notes the most CPU time that its loop used between two runs of a task that is due each millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last = time.thread_time()
        self.most_s = 0.0
        self._tick()

    def _tick(self) -> None:
        now = time.thread_time()
        self.most_s = max(self.most_s, now - self._last)
        self._last = now
        self._loop.call_later(_TICK_S, self._tick)


class MeteredRelay:
    """The running relay, as seen from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, cursor: str) -> None:
        self._loop = loop
        self._meter = Meter(loop)
        self.port = urlsplit(url).port
        self.cursor = cursor
        """A cursor with rounds after it, for messages that start a replay."""

    def connect(self) -> socket.socket:
        """Open a connection whose every step has a deadline."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def most_cpu_s(self, attack: Callable[[], object]) -> float:
        """Return the most CPU time between two turns while `attack` ran, and until what it sent was handled."""
        self.settle()
        self._call(self._reset)
        attack()
        self.settle()
        return self._call(lambda: self._meter.most_s)

    def settle(self) -> None:
        """Wait until the loop has little to do: it uses less CPU than time."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            began = self._call(time.thread_time)
            time.sleep(_QUIET_S)
            if self._call(time.thread_time) - began < _QUIET_S / 2:
                return
        raise TimeoutError("the relay is still busy with what it was sent")

    def _reset(self) -> None:
        self._meter.most_s = 0.0

    def _call(self, act: Callable[[], T]) -> T:
        """Call a function in the loop's thread."""

        async def call() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(DEADLINE_S)


@contextmanager
def metered_relay(folder: Path) -> Iterator[MeteredRelay]:
    """Run a relay with some rounds in its log. `folder` is empty, for the files of NATS."""
    started: list[MeteredRelay | BaseException] = []
    has_started, stop = threading.Event(), threading.Event()

    async def run() -> None:
        nats = NatsServer(folder)
        await nats.start()
        try:
            settings = LogSettings(url=nats.url)
            first = await _store_rounds(settings)
            whole = Settings(
                nats=settings,
                http=HttpSettings(host="127.0.0.1", port=0),
                grpc=GrpcSettings(host="127.0.0.1", port=0),
                drain=DrainSettings(grace_s=0, margin_s=0),
            )
            async with running_relay(whole, KeyRing.demo(), TokenSigner.ephemeral()) as at:
                await wait_ready(at.url)
                started.append(MeteredRelay(asyncio.get_running_loop(), at.url, first))
                has_started.set()
                await asyncio.to_thread(stop.wait)
        finally:
            await nats.kill()

    def run_thread() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:
            started.append(error)
            has_started.set()
            raise

    thread = threading.Thread(target=run_thread, name="metered-relay")
    # A full collection of all that pytest has loaded would be counted as the relay's.
    gc.collect()
    gc.freeze()
    thread.start()
    try:
        assert has_started.wait(DEADLINE_S)
        relay = started[0]
        if isinstance(relay, BaseException):
            raise relay
        yield relay
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        gc.unfreeze()


async def _store_rounds(settings: LogSettings) -> str:
    """Store rounds of three games; return the cursor of the first one."""
    async with connect(settings, name="test") as nc:
        opened = await open_log(nc, settings)
        stream = nc.client.jetstream()
        for number in range(1, _ROUNDS):
            game = ("crash", "dice", "plinko")[number % 3]
            await nc.client.publish(log_subject(game), make_round(game, number).to_json())
        await stream.publish(log_subject("crash"), make_round("crash", _ROUNDS).to_json())
    return f"{opened.epoch}-1"
