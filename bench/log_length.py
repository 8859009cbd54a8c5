"""What each read of the log costs as the log grows: ``python -m bench.log_length [SHORT LONG]``.

One log is filled to a first length and then to a second one; the same reads are made at both. "CPU" is that of all
threads of nats-server; "takes" is the time until the answer was read here, parsing included. Reads at random places
make the server load parts of the log from disk; the others stay near each other.
"""

import asyncio
import itertools
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from bench._nats import NatsServer
from bench._process import on_core
from bench._relay import relay
from bench._report import heading, table
from bench._rounds import endless
from roundlog.client.connection import Connection, connect
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from roundlog.stream import LogInfo, open_log
from roundlog.tail import first_since, newest_ids, newest_sequences, stored_pages
from rounds import log_subject
from rounds.subjects import LOG_SUBJECTS

_LENGTHS: Final = (100_000, 3_000_000)
_ALLOWED: Final = range(10_000, 100_000_001)
_DISTINCT: Final = 10_000
"""Rounds that differ; a longer log repeats them, which no read of the log notices."""
_READS_S: Final = 0.4
"""How long each read is repeated; at least `_LEAST` times."""
_LEAST: Final = 20
_PAGE: Final = 500
_CORE: Final = 1

Read = Callable[[], Awaitable[object]]


class Cost(NamedTuple):
    """One read, on average."""

    cpu_ms: float
    wall_ms: float


def main(lengths: tuple[int, int]) -> None:
    heading("Length of the log", f"python -m bench.log_length {' '.join(map(str, lengths))}")
    costs: list[Mapping[str, Cost]] = []
    with on_core(_CORE), NatsServer() as nats:
        stored = 0
        for length in lengths:
            _fill(nats, stored, length)
            stored = length
            costs.append({**uvloop.run(_measure(nats)), **_start(nats)})
        name, hole = uvloop.run(_measure_with_hole(nats))
    short, long = (f"{length:,}" for length in lengths)
    rows = []
    for name, before in costs[0].items():
        after = costs[1][name]
        rows.append([name, *map(_ms, (before.cpu_ms, after.cpu_ms)), f"{after.cpu_ms / before.cpu_ms:.1f}"])
        rows[-1] += map(_ms, (before.wall_ms, after.wall_ms))
    rows.append([name, "", _ms(hole.cpu_ms), "", "", _ms(hole.wall_ms)])
    header = ["read", f"CPU at {short}", f"CPU at {long}", "ratio", f"takes at {short}", f"takes at {long}"]
    table(header, rows)


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


async def _measure(nats: NatsServer) -> Mapping[str, Cost]:
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="bench") as connection, LogReader(settings) as reader:
        reads = _reads(await open_log(connection, settings), connection, reader)
        return {name: await _cost(nats, read) for name, read in reads.items()}


async def _measure_with_hole(nats: NatsServer) -> tuple[str, Cost]:
    """Delete one message of the log: the server then has to count how many messages there are after a page."""
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="bench") as connection, LogReader(settings) as reader:
        await connection.client.request("$JS.API.STREAM.MSG.DELETE.ROUNDS", b'{"seq":7,"no_erase":true}', timeout=10)
        name = f"page of {_PAGE}, all games"
        read = _reads(await open_log(connection, settings), connection, reader)[name]
        return f"{name}, one message deleted", await _cost(nats, read)


def _reads(info: LogInfo, connection: Connection, reader: LogReader) -> Mapping[str, Read]:
    chance, length = random.Random(14), info.last
    # In one place, but never the same page: later starts, each a page after the one before.
    starts = itertools.cycle(range(length // 2 + 1, length // 2 + 4000, 100))
    first_at, last_at = info.first_at, info.last_at
    assert first_at is not None
    assert last_at is not None

    def any_time() -> datetime:
        return first_at + chance.random() * (last_at - first_at)

    def anywhere() -> int:
        return chance.randrange(1, length - _PAGE)

    async def tail() -> None:
        async for _ in stored_pages(connection, info.stream, first=length - 1999, last=length):
            pass

    return {
        "page of 100, all games": lambda: reader.page(next(starts), limit=100),
        f"page of 100, by `{LOG_SUBJECTS}`": lambda: _by_subject(reader, next(starts), 100),
        f"page of {_PAGE}, all games": lambda: reader.page(next(starts), limit=_PAGE),
        f"page of {_PAGE}, by `{LOG_SUBJECTS}`": lambda: _by_subject(reader, next(starts), _PAGE),
        f"page of {_PAGE}, all games, anywhere": lambda: reader.page(anywhere(), limit=_PAGE),
        f"page of {_PAGE}, one game": lambda: reader.page(next(starts), limit=_PAGE, game="crash"),
        f"page of {_PAGE}, one game, anywhere": lambda: reader.page(anywhere(), limit=_PAGE, game="crash"),
        "oldest round": reader.first,
        "newest round": reader.last,
        "newest round of each game": reader.newest,
        "end of the log, by the leader": reader.end,
        "next round, by the leader": lambda: reader.next_of_leader(anywhere()),
        "first round since a time": lambda: reader.since(round(1000 * any_time().timestamp())),
        "100th last round of a game": lambda: reader.nth_last("crash", 100, before=length + 1),
        "ingest: newest 2,000 rounds": tail,
        "ingest: newest ids": lambda: newest_ids(connection, info.stream),
        "ingest: newest sequences": lambda: newest_sequences(connection, info.stream),
        "ingest: first round since a time": lambda: first_since(connection, info.stream, any_time()),
    }


async def _by_subject(reader: LogReader, start: int, limit: int) -> None:
    await reader._get({"seq": start, "batch": limit, "next_by_subj": LOG_SUBJECTS})


async def _cost(nats: NatsServer, read: Read) -> Cost:
    """Repeat a read, one at a time, and return what one costs."""
    await read()
    before_ns, begun, count = _cpu_ns(nats.pid), time.monotonic(), 0
    while count < _LEAST or time.monotonic() - begun < _READS_S:
        await read()
        count += 1
    took_s = time.monotonic() - begun
    return Cost((_cpu_ns(nats.pid) - before_ns) / 1e6 / count, 1000 * took_s / count)


def _start(nats: NatsServer) -> Mapping[str, Cost]:
    """Start a relay, until it is ready."""
    before_ns = _cpu_ns(nats.pid)
    with relay(nats.url) as process:
        return {"start of a relay": Cost((_cpu_ns(nats.pid) - before_ns) / 1e6, 1000 * process.ready_s)}


def _cpu_ns(pid: int) -> int:
    """CPU time of a process that threads still running have used, to the nanosecond."""
    return sum(int(task.read_text("ascii").split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _fill(nats: NatsServer, stored: int, length: int) -> None:
    """Store rounds until the log has `length` of them."""
    settings = LogSettings(url=nats.url)

    async def create() -> None:
        async with connect(settings, name="bench") as connection:
            await open_log(connection, settings)

    asyncio.run(create())
    published = [(log_subject(r.game_slug).encode(), r.to_json()) for r in itertools.islice(endless(), _DISTINCT)]
    with socket.create_connection(("127.0.0.1", nats.port), 60) as sock, sock.makefile("rb") as answers:
        sock.sendall(b'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"0"}\r\nSUB ack 1\r\n')
        while stored < length:
            batch = published[: length - stored]
            stored += len(batch)
            # The server drops what it cannot store in time, so the last one of each batch is acknowledged.
            (last_subject, last), others = batch[-1], batch[:-1]
            parts = [b"PUB %b %d\r\n%b\r\n" % (subject, len(data), data) for subject, data in others]
            sock.sendall(b"".join([*parts, b"PUB %b ack %d\r\n%b\r\n" % (last_subject, len(last), last)]))
            while not (line := answers.readline()).startswith(b"{"):
                if line == b"PING\r\n":
                    sock.sendall(b"PONG\r\n")
            if b'"seq":%d' % stored not in line:
                raise SystemExit(f"the log lacks rounds: {stored} were published, and it answered {line!r}")


def _lengths(arguments: list[str]) -> tuple[int, int]:
    if not arguments:
        return _LENGTHS
    if len(arguments) != 2 or not all(text.isdecimal() and int(text) in _ALLOWED for text in arguments):
        raise SystemExit(
            f"{' '.join(arguments)!r} is not two numbers of rounds; use {_ALLOWED.start} to {_ALLOWED.stop - 1}"
        )
    short, long = map(int, arguments)
    if long < short:
        raise SystemExit(f"the second length, {long}, is less than the first, {short}; it must not be")
    return short, long


if __name__ == "__main__":
    main(_lengths(sys.argv[1:]))
