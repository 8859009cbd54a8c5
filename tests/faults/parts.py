"""Processes of ours as an operator runs them: ``stream-relay serve`` and ``stream-relay ingest``, with a log file each.

Owns starting, ending, freezing, and noticing that one has ended by itself. Knows nothing of faults.
"""

import asyncio
import os
import re
import resource
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.clients.program import clean_environment
from tests.relay.serving import COMMAND
from tests.signals import freeze
from tests.waiting import until

_START_S: Final = 60.0
_END_S: Final = 30.0
_LISTENING: Final = re.compile(
    r'"url": ?"http://127\.0\.0\.1:(\d+)".*?"grpc_port": ?(\d+)|"grpc_port": ?(\d+).*"url": ?"http://127\.0\.0\.1:(\d+)"'
)
_INGEST: Final = re.compile(
    r'"event": ?"ingest_listening".*?"port": ?(\d+)|"port": ?(\d+).*"event": ?"ingest_listening"'
)
BUGS: Final = re.compile(
    r"Traceback \(most recent.*(?:\n\s.*)*(?:\n.*)?"
    r"|request_failed|Task exception was never retrieved|Unclosed|never awaited"
)
"""What no log of ours may contain, whatever happens around the process."""


class Part:
    """One process. `expected_end` is set before it is ended, so that its end is no finding."""

    def __init__(self, name: str, folder: Path, command: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.expected_end = False
        self.frozen = False
        self._command = [COMMAND, command]
        self._environment = clean_environment() | dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._begins_at = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended_by_itself(self) -> bool:
        return self._process is not None and self._process.poll() is not None and not self.expected_end

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; its output is appended to its log."""
        self._begins_at = self.log.stat().st_size if self.log.exists() else 0
        self.expected_end = self.frozen = False
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def printed(self) -> str:
        """All it has printed since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._begins_at)
            return log.read().decode(errors="replace")

    async def said(self, pattern: re.Pattern[str], *, within_s: float = _START_S) -> re.Match[str]:
        """Wait until it has printed a match since its last start."""

        def look() -> re.Match[str] | None:
            if not self.runs:
                raise AssertionError(f"{self.name} ended with {self.exit_code}:\n{self.printed()[-2000:]}")
            return pattern.search(self.printed())

        return await until(look, within_s=within_s)

    def send_signal(self, number: signal.Signals) -> None:
        if self.runs:
            os.kill(self.pid, number)

    def freeze(self) -> None:
        if self.runs:
            self.frozen = True
            freeze(self.pid)

    def thaw(self) -> None:
        self.frozen = False
        self.send_signal(signal.SIGCONT)

    def limit_files(self, count: int) -> int:
        """Set the soft limit of open files at run time; return the one before."""
        before, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (min(count, hard), hard))
        return before

    def open_files(self) -> int:
        with suppress(OSError):
            return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - only the number is wanted
        return 0

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait; by force when it does not end."""
        self.expected_end = True
        if self._process is None:
            return
        self.send_signal(number)
        self.send_signal(signal.SIGCONT)
        with suppress(TimeoutError):
            await until(lambda: not self.runs, within_s=_END_S)
        if self.runs:
            self.send_signal(signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)


class Relay(Part):
    """A relay and its two ports."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(name, folder, "serve", environment)
        self.port = self.grpc_port = 0

    async def listening(self) -> None:
        """Wait until it listens; its ports are those of this start."""
        found = await self.said(_LISTENING)
        self.port, self.grpc_port = int(found[1] or found[4]), int(found[2] or found[3])


class Ingest(Part):
    """An ingest process."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(name, folder, "ingest", environment)
        self.port = 0

    async def listening(self) -> None:
        found = await self.said(_INGEST)
        self.port = int(found[1] or found[2])
