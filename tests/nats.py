"""A real nats-server for one test, with its own port and store, which it keeps over kills and restarts."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from tests.network.ports import HeldPort
from tests.signals import freeze

_START_S: Final = 20.0


class NatsServer:
    """A nats-server process. It has a held port; restarts keep the port and the store."""

    def __init__(self, store: Path, *arguments: str, jetstream: bool = True, config: str = "") -> None:
        """Prepare a server.

        Args:
            store: An empty folder; JetStream's files and the configuration go there.
            arguments: More command line arguments.
            jetstream: Off: a server that cannot hold the log.
            config: Text of a configuration file.
        """
        self.store = store
        self._held = HeldPort()
        self._arguments = arguments
        self._jetstream = jetstream
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self._held.number

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until it is ready. After a kill: on the same port and store."""
        command: list[str | Path] = [
            Path(sys.executable).with_name("nats-server"),
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        if self._jetstream:
            command += ["-js", "-sd", self.store / "jetstream"]
        if self._config:
            path = self.store / "server.conf"
            path.write_text(self._config)
            command += ["-c", path]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(_START_S):
            await self._ready(self._process)
        self._reader = asyncio.create_task(self._discard(self._process), name="nats-server-log")

    async def stop(self) -> None:
        """Stop it with SIGTERM; do nothing when it is not running."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Kill it, as a crash does (SIGKILL)."""
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Freeze it while its connections stay open (SIGSTOP)."""
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        """Resume a frozen server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        process, reader, self._process, self._reader = self._process, self._reader, None, None
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        await process.wait()
        if reader is not None:
            await reader

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        seen = []
        async for line in process.stderr:
            seen.append(line.decode(errors="replace"))
            if b"Server is ready" in line:
                return
        raise AssertionError("nats-server did not start:\n" + "".join(seen))

    @staticmethod
    async def _discard(process: asyncio.subprocess.Process) -> None:
        """Read the pipe, so that the server never blocks on its log."""
        assert process.stderr is not None
        while await process.stderr.read(1 << 16):
            pass


@asynccontextmanager
async def nats_client(settings: LogSettings) -> AsyncIterator[Client]:
    """Hold a connection of nats-py, for what relay and publisher never do themselves."""
    async with connect(settings, name="test") as connection:
        yield connection.client
