"""Ingest from Postgres as a process of its own, for tests that kill or freeze it.

``python -m tests.postgres.ingest_process JSON``; the JSON has ``options`` of the backend, ``log`` and ``publisher``.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from backends.ingest.run_ingest import run_ingest
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.postgres.reading import CONTEXT
from tests.postgres_server import PostgresServer
from tests.signals import freeze

_ROOT: Final = Path(__file__).parents[2]


class IngestProcess:
    """A running ingest. Its log events are read from its standard output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def peak_bytes(self) -> int:
        """The most memory that it has had so far (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024

    async def said(self, event: str) -> str:
        """Wait until it has logged an event that is not in `lines` yet; return the line."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode())
            if event in self.lines[-1]:
                return self.lines[-1]
        raise AssertionError(f"ingest ended without {event}:\n{''.join(self.lines)}")

    async def kill(self) -> None:
        """Kill it, as a crash would."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def freeze(self) -> None:
        freeze(self._process.pid)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def ingesting(
    postgres: PostgresServer,
    nats: NatsServer,
    *,
    log: dict[str, Any] | None = None,
    publisher: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[IngestProcess]:
    """Run ingest from one server to the other; killed at the end at the latest."""
    given = {
        "options": {"dsn": postgres.dsn(), "create": True, "retry_max_s": 0.2, **options},
        "log": {"url": nats.url, **(log or {})},
        "publisher": publisher or {},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.postgres.ingest_process",
        json.dumps(given),
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    ingest = IngestProcess(process)
    try:
        yield ingest
    finally:
        await ingest.kill()


async def _main(given: dict[str, Any]) -> None:
    backend = PostgresReplication(given["options"], CONTEXT)
    await run_ingest(backend, LogSettings(**given["log"]), PublisherSettings(**given["publisher"]))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(json.loads(sys.argv[1])))
