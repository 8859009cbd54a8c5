"""Run one schedule: start everything, commit and deliver, break and mend, and judge what came of it.

Owns the order of a run and its deadlines. What is right is decided in `judge_log` and `judge_client`.
"""

import asyncio
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nats.errors import Error as NatsError

from tests.faults.clients.client import Address, Client, World
from tests.faults.clients.readers import HistoryReader
from tests.faults.clients.table import client_of
from tests.faults.installation import Installation, running
from tests.faults.judge_client import newest_due
from tests.faults.kinds.table import FAULTS
from tests.faults.plan import Schedule, Step
from tests.faults.producer import Producer
from tests.faults.record import ApiError, admin, update_record
from tests.faults.supervisor import supervise
from tests.faults.values import Finding, Key, LogRecord
from tests.faults.verdict import verdict
from tests.waiting import until

if TYPE_CHECKING:
    from tests.faults.kinds.fault import Fault

Start = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]

WHOLE_S: Final = 60.0
"""After the last fault: the longest until everything committed is in the log, and with every client."""
_SETTLE_S: Final = 15.0
_WARM_UP: Final = 30
_LAST_ROUNDS: Final = 40
_HEAD_EVERY_S: Final = 0.5
_SHOWN: Final = 2000


@dataclass
class Result:
    """What one schedule came to."""

    schedule: Schedule
    findings: list[Finding] = field(default_factory=list)
    rounds: int = 0
    deliveries: int = 0
    """Rounds that clients received, each of which was compared."""
    faults: Counter[str] = field(default_factory=Counter)
    """By kind."""
    left_out: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    """How connections of clients ended."""
    gaps: Counter[str] = field(default_factory=Counter)
    """Gaps that clients were sent, by reason."""
    allowed_doubles: int = 0
    seconds: float = 0.0
    folder: Path = Path()


class Run:
    """One schedule on one installation."""

    def __init__(self, schedule: Schedule, installation: Installation, result: Result, *, shows: bool = False) -> None:
        self.schedule = schedule
        self.at = installation
        self.record = LogRecord()
        self.producer = Producer(installation.postgres, schedule.seed, schedule.rate)
        self.result = result
        self.clients: list[Client] = []
        self.readers: list[HistoryReader] = []
        self.faults: list[Fault] = []
        self._shows = shows
        self._began = time.monotonic()

    async def run(self) -> None:
        """Run everything; findings are in `result`."""
        await self._follow_head_once()
        async with self._tasks() as start:
            start(supervise(self.at, self.result.findings), "supervisor")
            start(self._follow_head(), "head")
            producing = start(self.producer.run(), "producer")
            await until(lambda: len(self.record.entries) >= _WARM_UP)
            self._start_clients(start)
            await self._settle()
            for step in self.schedule.steps:
                await self.step(step)
            producing.cancel()
            await asyncio.gather(producing, return_exceptions=True)
            await self._finish()

    def _start_clients(self, start: Start) -> None:
        world = World(self.at.key, self._address, lambda: self.producer.begun, self._head)
        for plan in self.schedule.clients:
            client = client_of(plan, world)
            if isinstance(client, HistoryReader):
                self.readers.append(client)
            else:
                self.clients.append(client)
            start(client.run(), plan.name)

    async def step(self, step: Step) -> None:
        """Begin the faults, hold them, and end them."""
        faults = []
        for planned in step.faults:
            kind = FAULTS[planned.name]
            if not kind.applies(self.at):
                self.result.left_out.append(planned.name)
                continue
            fault = kind(self.at, self.producer, self.record, planned.seed)
            self.result.faults[kind.kind] += 1
            self.faults.append(fault)
            faults.append(fault)
            await fault.begin()
            self.say(f"{fault.name} begins: {fault.target}")
        await asyncio.sleep(step.hold_s)
        for fault in reversed(faults):  # what one has frozen or cut, an earlier one may need to reach
            await fault.end()
            self.say(f"{fault.name} has ended")
        if step.settles:
            await self._settle()

    async def _settle(self) -> None:
        """Wait until every client that stays is connected; schedules differ in whether they wait between faults."""
        staying = [client for client in self.clients if client.plan.behaviour not in ("returning", "bulk")]
        with suppress(TimeoutError):
            await until(lambda: all(client.is_open for client in staying), within_s=_SETTLE_S)

    async def _finish(self) -> None:
        """Commit the last rounds to all that are connected, and wait until they are everywhere."""
        await self._settle()
        began = time.monotonic()
        for client in self.clients:
            client.hurries = True
        for _ in range(_LAST_ROUNDS):
            await self.producer.commit(1)
        await self.producer.commit(8, ("double", "crash", "dice", "plinko"))
        await self.producer.finish()
        commits = await self.producer.committed()
        numbers = {commit.key: commit.number for commit in commits}

        def is_stored() -> bool:
            entries = self.record.entries.values()
            return len(entries) >= len(numbers) and numbers.keys() <= {entry.key for entry in entries}

        with suppress(TimeoutError):
            await until(is_stored, within_s=WHOLE_S)
        self.say(f"all is stored after {time.monotonic() - began:.1f} s")
        with suppress(TimeoutError):
            await until(lambda: self._all_have(numbers), within_s=WHOLE_S - min(30, time.monotonic() - began))
        await self._follow_head_once()
        for reader in self.readers:
            with suppress(TimeoutError):
                await until(reader.walk_last, within_s=_SETTLE_S)
        self.say(f"all was delivered after {time.monotonic() - began:.1f} s")
        verdict(self, commits, numbers)
        self.result.seconds = time.monotonic() - self._began

    def _all_have(self, numbers: dict[Key, int]) -> bool:
        return all(self._has_all(client, numbers) for client in self.clients)

    def _has_all(self, client: Client, numbers: dict[Key, int]) -> bool:
        if not client.view.chains:
            return False
        chain = client.view.chains[-1]
        newest = newest_due(client.view, chain, self.record, numbers)
        return newest is None or chain.position >= newest.sequence

    def _address(self, random_: random.Random) -> Address:
        """Choose a relay as a load balancer does that knows which processes have died, and nothing else."""
        ways = [self.at.ways[relay.name] for relay in self.at.relays if relay.runs and not relay.expected_end]
        if not ways:
            raise ConnectionRefusedError
        http, grpc = random_.choice(ways)
        return Address(f"http://127.0.0.1:{http.port}", f"127.0.0.1:{grpc.port}")

    def _head(self) -> str:
        return f"{self.record.epoch}-{self.record.head}"

    async def _follow_head_once(self) -> None:
        with suppress(ApiError, NatsError, OSError, TimeoutError):
            async with admin([server.url for server in self.at.nats if server.runs]) as client:
                await update_record(client, self.record)

    async def _follow_head(self) -> None:
        """Keep the record near the head, so that an entry that expires was recorded before."""
        while True:
            await self._follow_head_once()
            await asyncio.sleep(_HEAD_EVERY_S)

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[Start]:
        """Tasks that are cancelled at the end; one that has failed is a finding."""
        tasks: list[asyncio.Task[None]] = []

        def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._show_failure)
            tasks.append(task)
            return task

        try:
            yield start
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):
                    self.result.findings.append(Finding("harness", "a task of ours", repr(error)))

    def _show_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.say("".join(traceback.format_exception(error)))

    def say(self, text: str) -> None:
        if self._shows:
            print(f"  {time.monotonic() - self._began:5.1f} s  {text}", flush=True)


async def run_schedule(schedule: Schedule, *, shows: bool = False) -> Result:
    """Run a schedule in a folder of its own, which stays when there are findings."""
    folder = Path(tempfile.mkdtemp(prefix=f"stream-relay-faults-{schedule.seed}-"))
    result = Result(schedule, folder=folder)
    try:
        async with running(schedule, folder) as installation:
            run = Run(schedule, installation, result, shows=shows)
            await run.run()
    except Exception as error:  # noqa: BLE001 - one schedule that cannot run must not end the campaign
        result.findings.append(Finding("harness", "the run", "".join(traceback.format_exception(error))[-_SHOWN:]))
    return result
