"""A real PostgreSQL for one test: its own cluster and port, which it keeps over kills and restarts.

A cluster is a copy of a template that initdb made once per version and machine, so that one costs well under a second.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import asyncpg

from relay.demo.postgres_programs import command_as, find_programs, reachable_programs, server_account
from tests.network.ports import HeldPort
from tests.signals import freeze
from tests.waiting import until

VERSIONS: Final = (15, 16, 18)

_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "shared_buffers": "16MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "lc_messages": "C",
}
_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_START_S: Final = 30.0

ROUNDS_TABLE: Final = """
CREATE TABLE {table} (
    round_id bigint PRIMARY KEY, game_slug text NOT NULL, game_type text, finished_at timestamptz, extras {extras}
)
"""


class PostgresServer:
    """A PostgreSQL process and its data. It has a held port, which restarts keep."""

    def __init__(self, version: int = 18, settings: Mapping[str, str] | None = None) -> None:
        """Prepare a cluster; `settings` override the defaults for tests.

        Raises:
            LookupError: This machine has no PostgreSQL of that version.
        """
        programs = find_programs(version)
        if programs is None:
            raise LookupError(f"no PostgreSQL {version} on this machine")
        self.version = version
        self._held = HeldPort()
        self.log: list[str] = []
        """The lines of the server's log."""
        self._account = server_account()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix=f"stream-relay-pg{version}-"))
        self._data = self._folder / "data"
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._frozen: list[int] = []

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the DSN of a database of this server for drivers and psql. Every user is trusted."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def port(self) -> int:
        return self._held.number

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None
        return self._process.pid

    # --- start and stop -----------------------------------------------------------------------------------------

    async def start(self, **settings: str) -> None:
        """Start it and wait until it accepts connections; again on the same port and data.

        `settings` hold from now on.
        """
        self._settings |= settings
        if not self._data.exists():
            await asyncio.to_thread(self._make_cluster)
        if not await self._try_start():
            raise AssertionError("PostgreSQL did not start:\n" + "\n".join(self.log[-30:]))

    async def start_from(self, primary: "PostgresServer") -> None:
        """Start it as a physical standby of a running server, from a copy of its data."""
        self._programs = reachable_programs(self._programs, self._folder)
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        program = self._programs / "pg_basebackup"
        options: list[str | Path] = ["-D", self._data, "-R", "-c", "fast", "-d", source]
        command: list[str | Path] = [*command_as(self._account), program, *options]
        if self._account is not None:
            shutil.chown(self._folder, self._account)

        def copy() -> None:
            subprocess.run(command, check=True, cwd=self._folder)

        await asyncio.to_thread(copy)
        await self.start()

    async def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop it as ``pg_ctl stop -m mode`` does; do nothing when it is not running."""
        await self._end([_SIGNALS[mode]])

    async def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast", **settings: str) -> None:
        """Stop and start."""
        await self.stop(mode)
        await self.start(**settings)

    async def kill(self) -> None:
        """Kill all its processes at once (SIGKILL), as a power failure does."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                self.freeze()  # so that the postmaster does not react to its children's deaths
            for pid in self._frozen:
                _signal(pid, signal.SIGKILL)
            self._frozen = []
        await self._end([])

    def freeze(self) -> None:
        """Freeze all its processes while its connections stay open (SIGSTOP)."""
        freeze(self.pid)
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        self._frozen = [self.pid, *map(int, children.split())]
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                freeze(pid)

    def thaw(self) -> None:
        """Resume a frozen server."""
        frozen, self._frozen = self._frozen, []
        for pid in reversed(frozen):
            _signal(pid, signal.SIGCONT)

    async def discard(self) -> None:
        """Kill it and remove its data."""
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    # --- work ---------------------------------------------------------------------------------------------------

    async def connect(self, database: str = "postgres", user: str = "postgres") -> "asyncpg.Connection[Any]":
        """Open a connection, which the caller closes."""
        return await asyncpg.connect(self.dsn(database, user), timeout=_START_S)

    async def execute(self, sql: str, *arguments: object, database: str = "postgres", user: str = "postgres") -> None:
        """Run SQL over a new connection; several statements are possible without arguments."""
        connection = await self.connect(database, user)
        try:
            await connection.execute(sql, *arguments)
        finally:
            await connection.close()

    async def fetch(self, sql: str, *arguments: object, database: str = "postgres") -> list[asyncpg.Record]:
        """Run one query over a new connection."""
        connection = await self.connect(database)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def slots_released(self) -> None:
        """Wait until no server process holds a slot: it holds it for a moment after its client has left."""

        async def released() -> bool:
            return bool(
                (await self.fetch("SELECT NOT coalesce(bool_or(active), false) FROM pg_replication_slots"))[0][0]
            )

        await until(released)

    async def make_rounds_table(
        self, table: str = "rounds", *, extras: str = "jsonb", database: str = "postgres"
    ) -> None:
        """Make a table of rounds as producers have it; `extras` is the type of that column."""
        await self.execute(ROUNDS_TABLE.format(table=table, extras=extras), database=database)

    async def insert_rounds(
        self, first: int, last: int, *, table: str = "rounds", game: str = "crash", database: str = "postgres"
    ) -> None:
        """Commit rounds `first` to `last` of a game in one transaction."""
        await self.execute(
            f"INSERT INTO {table} SELECT n, $3, 'multiplier', now(), '{{\"point\": 2.5}}' "  # noqa: S608
            "FROM generate_series($1::bigint, $2::bigint) n",
            first,
            last,
            game,
            database=database,
        )

    # --- inside -------------------------------------------------------------------------------------------------

    def _make_cluster(self) -> None:
        self._programs = reachable_programs(self._programs, self._folder)
        template = _template(self.version, self._programs, self._account)
        subprocess.run(["cp", "-a", template, self._data], check=True)

    async def _try_start(self) -> bool:
        command: list[str | Path] = [
            *command_as(self._account),
            self._programs / "postgres",
            "-D",
            self._data,
            "-p",
            str(self.port),
        ]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        process = self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._folder,
            start_new_session=True,
        )
        ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read_log(process, ready), name="postgres-log")
        async with asyncio.timeout(_START_S):
            await ready.wait()
        if process.returncode is None and not self._reader.done():
            return True
        await self._end([])
        return False

    async def _read_log(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        """Store the lines of the server's log; set `ready` when it is ready or has ended."""
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())
            if b"ready to accept " in line:
                ready.set()
        ready.set()

    async def _end(self, signals: list[signal.Signals]) -> None:
        process, reader = self._process, self._reader
        if process is None:
            return
        if process.returncode is None:
            for number in signals:
                process.send_signal(number)
        await process.wait()
        if reader is not None:
            await reader
        self._process = self._reader = None  # not earlier: if this wait is cancelled, `kill` still finds the process


def _template(version: int, programs: Path, account: str | None) -> Path:
    """Return a cluster that initdb created, once for all test processes."""
    owner = account or str(os.getuid())
    folder = Path(tempfile.gettempdir()) / f"stream-relay-templates-{owner}"
    folder.mkdir(exist_ok=True)
    if account is not None:
        shutil.chown(folder, account)
    template = folder / f"{version}"
    lock = os.open(folder / f"{version}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            with tempfile.TemporaryDirectory(dir=folder) as made:
                if account is not None:
                    shutil.chown(made, account)
                subprocess.run(
                    [*command_as(account), programs / "initdb", "-D", f"{made}/data",
                     "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
                    check=True, cwd=folder, stdout=subprocess.DEVNULL,
                )  # fmt: skip
                Path(made, "data").rename(template)
    finally:
        os.close(lock)
    return template


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
