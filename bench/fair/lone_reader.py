"""One client that reads the past, and how long each part of it takes."""

import random
import time
from collections.abc import Mapping
from typing import Final

from bench.hostile.sockets import Target
from bench.replay.filled_log import FilledLog

_RESUMED: Final = 5000
_PAGE: Final = 500
_TIMEOUT_S: Final = 120.0

MEASURES: Final[Mapping[str, str]] = {
    "first": "resume, first round",
    "resume": f"resume, {_RESUMED:,} rounds",
    "page": f"a page of {_PAGE} old rounds",
    "newest": "the newest round",
}
"""What is measured, by name."""


class LoneReader:
    """Reads, one thing after another."""

    def __init__(self, target: Target, log: FilledLog) -> None:
        self._target = target
        self._log = log

    def measure(self, times: int) -> dict[str, list[float]]:
        """Return the seconds of each of `MEASURES`, so many times."""
        taken: dict[str, list[float]] = {name: [] for name in MEASURES}
        for _ in range(times):
            first, whole = self._resume()
            taken["first"].append(first)
            taken["resume"].append(whole)
            taken["page"].append(self._answer(f"/api/history?limit={_PAGE}&before={self._cursor()}"))
            taken["newest"].append(self._answer("/api/latest/crash"))
        return taken

    def _cursor(self) -> str:
        return self._log.cursor(random.randrange(self._log.count // 4, self._log.count * 3 // 4))

    def _resume(self) -> tuple[float, float]:
        with self._target.connect() as connection:
            connection.settimeout(_TIMEOUT_S)
            began, first = time.monotonic(), 0.0
            connection.sendall(self._target.head("GET", f"/sse?after={self._cursor()}"))
            rounds, rest = 0, b""
            while rounds < _RESUMED:
                data = connection.recv(1 << 18)
                if not data:
                    raise SystemExit(f"the relay ended a resume after {rounds} rounds: {rest!r}")
                text = rest + data
                rounds += text.count(b'data: {"round_id"')
                rest = text[-15:]  # less than what is counted
                if rounds and not first:
                    first = time.monotonic() - began
            return first, time.monotonic() - began

    def _answer(self, path: str) -> float:
        with self._target.connect() as connection:
            connection.settimeout(_TIMEOUT_S)
            began = time.monotonic()
            connection.sendall(self._target.head("GET", path, "Connection: close"))
            answer = b""
            while data := connection.recv(1 << 18):
                answer += data
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{path} was answered with {answer[:200]!r}")
            return time.monotonic() - began
