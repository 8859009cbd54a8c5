"""``python -m bench.writers``: what capture costs those who write rounds: transactions a second, and WAL.

pgbench plays the life of a round, in three transactions: it is inserted, runs, and is finished. Each way to capture it
takes its turn beside the plain table, several times, so that only ratios of one turn are compared: of the CPU time of
the writers' sessions, which other processes of the machine hardly change, and of rounds a second. The server does not
wait for a disk (``fsync = off``), so the ratios are the worst case. Results: docs/benchmarks.md.
"""

import asyncio
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from backends.postgres.source_admin import admin_of
from bench._postgres import Postgres
from bench._report import heading, table
from relay.demo.postgres_programs import command_as, find_programs, reachable_programs, server_account
from tests.postgres_server import PostgresServer

_COMMAND: Final = "python -m bench.writers"
_CLIENTS: Final = 4
_SPAN_S: Final = 3
_TURNS: Final = 5
_BULK_ROWS: Final = 50_000
_REAPED_S: Final = 0.2
"""The postmaster has collected a session that has ended."""

_TABLE: Final = """
CREATE TABLE rounds (
    round_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, game_slug text NOT NULL, state text NOT NULL,
    server_seed text, started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz, extras jsonb
)
"""
_LIFE: Final = r"""
INSERT INTO rounds (game_slug, state, server_seed) VALUES ('crash', 'betting', md5('seed')) RETURNING round_id \gset
UPDATE rounds SET state = 'running' WHERE round_id = :round_id;
{begin}
UPDATE rounds SET state = 'finished', finished_at = now(), extras = '{{"point": "2.50", "hash": "0123456789abcdef"}}'
WHERE round_id = :round_id;
{end}
"""
_MESSAGE: Final = """
SELECT pg_logical_emit_message(true, 'stream_relay', json_build_object(
    'round_id', (:round_id)::text, 'game_slug', 'crash', 'finished_at', now()::text,
    'extras', '{{"point": "2.50", "hash": "0123456789abcdef"}}')::text);
"""


class Way(NamedTuple):
    """One way to capture the table."""

    name: str
    make: Callable[[PostgresServer], Awaitable[None]]
    begin: str = ""
    end: str = ""


class Turn(NamedTuple):
    """One run of pgbench."""

    rounds_per_s: float
    cpu_us: float
    """By round, of the sessions of pgbench in the server."""
    wal_bytes: float


async def _nothing(_server: PostgresServer) -> None:
    pass


def _sql(sql: str) -> Callable[[PostgresServer], Awaitable[None]]:
    return lambda server: server.execute(sql)


def _set_up(backend: str, **options: str) -> Callable[[PostgresServer], Awaitable[None]]:
    async def make(server: PostgresServer) -> None:
        await admin_of(backend, {"dsn": server.dsn(), "finished_when": "state = 'finished'", **options}).set_up(None)

    return make


async def _feed_alone(server: PostgresServer) -> None:
    """As for `postgres-replication`, which needs no notifications."""
    await _set_up("postgres-notify", feed="true")(server)
    await server.execute("DROP TRIGGER stream_relay_wake ON stream_relay.feed")


_PLAIN: Final = Way("plain table", _nothing)
_WAYS: Final = (
    Way("REPLICA IDENTITY FULL", _sql("ALTER TABLE rounds REPLICA IDENTITY FULL")),
    Way(
        "logical message when finished", _nothing, "BEGIN;", f"{_MESSAGE}COMMIT;".replace("{{", "{").replace("}}", "}")
    ),
    Way("feed", _feed_alone),
    Way("feed with notifications", _set_up("postgres-notify", feed="true")),
    Way("notifications of the table", _set_up("postgres-notify")),
)


async def main() -> None:
    postgres = Postgres()
    folder = tempfile.TemporaryDirectory()
    try:
        await postgres.run(postgres.server.start())
        heading(f"Writers: the life of a round, {_CLIENTS} clients, medians of {_TURNS} turns", _COMMAND)
        await lives(postgres, _pgbench_in(Path(folder.name)))
        heading(f"Writers: one UPDATE that finishes {_BULK_ROWS:,} rounds, medians of {_TURNS} turns", _COMMAND)
        await bulk(postgres)
    finally:
        await postgres.discard()
        folder.cleanup()


async def lives(postgres: Postgres, pgbench: Path) -> None:
    """What a round costs in each way, by what it costs in the plain table right before."""
    rows = []
    for way in _WAYS:
        pairs = [(await _turn(postgres, pgbench, _PLAIN), await _turn(postgres, pgbench, way)) for _ in range(_TURNS)]
        cpu = [one.cpu_us / plain.cpu_us for plain, one in pairs]
        speed = [one.rounds_per_s / plain.rounds_per_s for plain, one in pairs]
        wal = [one.wal_bytes / plain.wal_bytes for plain, one in pairs]
        cpu_us = statistics.median(one.cpu_us for _, one in pairs)
        rows.append([way.name, f"{cpu_us:.0f}", f"**{_middle(cpu)}**", _spread(cpu), _middle(speed), _middle(wal)])
    table(["", "CPU µs/round", "CPU ratio", "lowest to highest", "rounds/s ratio", "WAL ratio"], rows)


async def bulk(postgres: Postgres) -> None:
    """What one statement that finishes many rounds costs, by what it costs in the plain table."""
    rows = []
    for way in _WAYS:
        if way.end:
            continue
        pairs = [(await _bulk(postgres, _PLAIN), await _bulk(postgres, way)) for _ in range(_TURNS)]
        cpu = [one / plain for plain, one in pairs]
        cpu_us = statistics.median(one for _, one in pairs)
        rows.append([way.name, f"{cpu_us:.1f}", f"**{_middle(cpu)}**", _spread(cpu)])
    table(["", "CPU µs/round", "CPU ratio", "lowest to highest"], rows)


async def _turn(postgres: Postgres, pgbench: Path, way: Way) -> Turn:
    await postgres.run(_fresh(postgres.server, way))
    wal, cpu = await postgres.run(_wal(postgres.server)), _sessions_cpu_s(postgres.server.pid)
    script = _LIFE.format(begin=way.begin, end=way.end)
    count, rate = await asyncio.to_thread(_run, pgbench, postgres.server, script)
    used_us = (_sessions_cpu_s(postgres.server.pid) - cpu) / count * 1e6
    return Turn(rate, used_us, (await postgres.run(_wal(postgres.server)) - wal) / count)


async def _bulk(postgres: Postgres, way: Way) -> float:
    server = postgres.server
    await postgres.run(_fresh(server, way))
    fill = "INSERT INTO rounds (game_slug, state, server_seed) SELECT 'crash', 'running', md5(n::text)"
    await postgres.run(server.execute(f"{fill} FROM generate_series(1, {_BULK_ROWS}) n"))
    cpu = _sessions_cpu_s(server.pid)
    finish = "UPDATE rounds SET state = 'finished', finished_at = now(), extras = '{\"point\": \"2.50\"}'"
    await postgres.run(server.execute(finish))
    return (_sessions_cpu_s(server.pid) - cpu) / _BULK_ROWS * 1e6


def _sessions_cpu_s(postmaster: int) -> float:
    """CPU time of the server's processes that have ended: each session is one."""
    time.sleep(_REAPED_S)
    fields = Path(f"/proc/{postmaster}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime of proc_pid_stat(5)


async def _fresh(server: PostgresServer, way: Way) -> None:
    await server.execute("DROP SCHEMA IF EXISTS stream_relay CASCADE")
    await server.execute("DROP TABLE IF EXISTS rounds")
    await server.execute(_TABLE)
    await way.make(server)
    await server.execute("CHECKPOINT")


async def _wal(server: PostgresServer) -> int:
    [row] = await server.fetch("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
    return int(row[0])


def _pgbench_in(folder: Path) -> Path:
    """Return pgbench where the server's account can run it; `folder` may get a copy."""
    programs = find_programs(18)
    assert programs is not None
    return reachable_programs(programs, folder) / "pgbench"


def _run(pgbench: Path, server: PostgresServer, script: str) -> tuple[int, float]:
    """Run pgbench; return the number of scripts that it ran, and how many in a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        Path(file.name).chmod(0o644)
        how: list[str | Path] = ["-n", "-M", "prepared", "-c", str(_CLIENTS), "-T", str(_SPAN_S), "-f", file.name]
        command = [*command_as(server_account()), pgbench, *how, server.dsn()]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir())
    count = re.search(r"actually processed: (\d+)", run.stdout)
    rate = re.search(r"tps = ([\d.]+)", run.stdout)
    assert count is not None, run.stdout + run.stderr
    assert rate is not None
    return int(count[1]), float(rate[1])


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):.2f}"


def _spread(values: list[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


if __name__ == "__main__":
    uvloop.run(main())
