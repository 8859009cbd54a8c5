"""A child process whose output tests read line by line, as it is printed.

Owns starting, reading and ending it. Waits for output, never for time; a deadline only ends a wait that would not end.
"""

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_END_S: Final = 10.0


class Program:
    """A running program and all it has printed so far, stdout and stderr together. Leaving the block ends it."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `command` with `env` added to the environment of the tests."""
        self.command = list(command)
        self.printed: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=clean_environment() | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that its child processes can be ended with it
        )
        self._reader = threading.Thread(target=self._read, name=f"reads-{self.command[0]}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, pattern: str, *, count: int = 1, within_s: float = 30.0) -> list[re.Match[str]]:
        """Return the next `count` lines that match, in the order printed.

        Raises:
            AssertionError: The program ended, or `within_s` passed, before it printed them. The text shows what it did
                print.
        """
        found: list[re.Match[str]] = []
        deadline = time.monotonic() + within_s
        while len(found) < count:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(self._report(f"{len(found)} of {count} {pattern!r} in {within_s} s")) from None
            if line is None:
                raise AssertionError(self._report(f"ended after {len(found)} of {count} {pattern!r}"))
            self.printed.append(line)
            if match := re.search(pattern, line):
                found.append(match)
        return found

    def wait(self, *, within_s: float = 30.0) -> int:
        """Wait until it ends by itself; return its exit code. `printed` is then complete."""
        code = self._process.wait(within_s)
        self._finish()
        return code

    def stop(self) -> int:
        """End it as Ctrl-C does, and by force if it has not ended within 10 s; return its exit code."""
        if (ended := self._process.returncode) is not None:  # its process id may belong to another program by now
            return ended
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._finish()
        return self._process.returncode

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _finish(self) -> None:
        """Read the remaining output."""
        with contextlib.suppress(ProcessLookupError):  # a child of the program would keep the pipe open
            os.killpg(self.pid, signal.SIGKILL)
        self._reader.join()
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                self.printed.append(line)

    def _report(self, fault: str) -> str:
        shown = "\n  ".join(self.printed[-30:]) or "(nothing)"
        return f"{' '.join(self.command)}: {fault}; it printed:\n  {shown}"


def clean_environment() -> dict[str, str]:
    """The environment without our settings, so that those of a developer do not affect a test."""
    ours = ("RELAY_", "PORT", "BASE_URL", "API_KEY", "GAME")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"PYTHONUNBUFFERED": "1"}
