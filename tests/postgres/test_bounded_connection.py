"""A stream with logical messages: those of other applications cost no memory, and it recovers as any other."""

import asyncio
import tomllib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from backends.contract import InvalidOptions, SourceError
from backends.postgres.replication.protocol.asyncpg_takeover import TRIED, take_over
from backends.postgres.replication.protocol.bounded_connection import BoundedConnection
from backends.postgres.replication.protocol.replication_connection import NoAnswer, ServerError, StreamLost
from backends.postgres.replication.protocol.wal import status_update
from backends.postgres.replication.slot import ReplicationOptions
from tests.backends.harness import Events, captured_events
from tests.nats import NatsServer
from tests.network.wire import Wire
from tests.postgres.ingest_process import ingesting
from tests.postgres.reading import HOLDER, Reader, make_backend, reading, wait_for_sql
from tests.postgres.test_replication_faults import stored_ids
from tests.postgres_server import PostgresServer
from tests.roundlog.test_closed_transports import on_uvloop
from tests.waiting import until

PREFIX: Final = "stream_relay"
ROUND: Final = (
    '{"round_id": %d, "game_slug": "crash", "finished_at": "2026-01-18T10:00:30Z", "extras": {"point": 2.50}}'
)
MIB: Final = 1 << 20


async def emit_round(server: PostgresServer, number: int) -> None:
    await server.execute("SELECT pg_logical_emit_message(true, $1, $2::text)", PREFIX, ROUND % number)


async def emit_large(server: PostgresServer, prefix: str, mebibytes: int, *, transactional: bool = True) -> None:
    await server.execute(
        f"SELECT pg_logical_emit_message({transactional}, $1, repeat('x', $2))", prefix, mebibytes * MIB
    )


def test_versions_that_were_tried_are_those_that_can_be_installed() -> None:
    """The error names the range that pip allows."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(f"asyncpg{TRIED}" in extra for extra in project["optional-dependencies"].values())


@pytest.mark.parametrize("transport", [None, SimpleNamespace(set_protocol=print)])
def test_asyncpg_without_the_part_is_named_with_the_tested_range(transport: Any) -> None:
    """The connection is closed, and the error says what to install."""
    closed: list[bool] = []
    connection = SimpleNamespace(_transport=transport, terminate=lambda: closed.append(True))
    with pytest.raises(
        SourceError, match=r"asyncpg \S+ lacks Connection._transport.*message_prefix.*install asyncpg >"
    ):
        take_over(connection, asyncio.Protocol())
    assert closed == [True]


def test_parameter_that_asyncpg_does_not_support_is_refused() -> None:
    """A security parameter of libpq is never silently ignored; without messages it works."""
    dsn = "postgresql://h/d?require_auth=scram-sha-256"
    assert ReplicationOptions.read({"dsn": dsn}).shown_dsn == "h/d"
    with pytest.raises(InvalidOptions, match=r"asyncpg.*message_prefix.*require_auth"):
        ReplicationOptions.read({"dsn": dsn, "message_prefix": PREFIX})


@pytest.mark.service
async def test_large_messages_cost_no_memory(postgres: PostgresServer, nats: NatsServer) -> None:
    """Of another application, transactional or not, and ours over the limit; the rounds around them come."""
    async with ingesting(postgres, nats, message_prefix=PREFIX) as ingest:
        await ingest.said("stream_started")
        await emit_round(postgres, 1)
        await stored_ids(nats, 1)
        before = ingest.peak_bytes

        await emit_large(postgres, "other", 64)
        await emit_large(postgres, "other", 64, transactional=False)
        await emit_large(postgres, PREFIX, 64)
        await emit_round(postgres, 2)
        assert await stored_ids(nats, 2) == [1, 2]
        assert ingest.peak_bytes - before < 20 * MIB
        await ingest.said("round_rejected")
        assert f"the message has {64 * MIB} bytes" in ingest.lines[-1]


@pytest.mark.service
async def test_stream_with_messages_recovers_from_every_fault(postgres: PostgresServer) -> None:
    """Nothing is missing or repeated, and the reason is logged as for other streams; rows of any size come."""
    await postgres.make_rounds_table()
    wire = Wire("ingest>postgres", lambda: postgres.port)
    options = {"message_prefix": PREFIX, "table": "public.rounds", "sender_timeout_s": 1, "connect_timeout_s": 1}
    async with wire.listening():
        dsn = postgres.dsn().replace(str(postgres.port), str(wire.port))
        with captured_events() as events:
            async with reading(make_backend(postgres, dsn, **options)) as reader:
                await suffer(postgres, wire, reader, events)
    assert reader.ids == list(range(1, 6))
    assert len(reader.rounds[1].extras) > 4 * MIB
    reasons = [event["error"] for event in events.details if event["event"] == "stream_lost"]
    assert "57P01" in reasons[0]
    assert any("connection lost" in reason for reason in reasons[1:])
    assert any("silent for" in reason or "no answer" in reason for reason in reasons[1:])


async def suffer(postgres: PostgresServer, wire: Wire, reader: Reader, events: Events) -> None:
    await emit_round(postgres, 1)
    await postgres.execute(
        "INSERT INTO rounds VALUES (2, 'crash', NULL, now(), jsonb_build_object('a', repeat('x', $1)))", 5 * MIB
    )
    await reader.seen(2)
    pid = await wait_for_sql(postgres, HOLDER)
    await postgres.execute("SELECT pg_terminate_backend($1)", pid)
    await postgres.insert_rounds(3, 3)
    await reader.seen(3)

    wire.slow(20 * MIB)
    carried = wire.carried
    await emit_large(postgres, "other", 16)
    await until(lambda: wire.carried > carried + 4 * MIB)
    wire.cut()
    wire.heal()
    await emit_round(postgres, 4)
    await reader.seen(4)

    postgres.freeze()
    lost = events.count("stream_lost")
    await until(lambda: events.count("stream_lost") > lost)
    postgres.thaw()
    await postgres.insert_rounds(5, 5)
    await reader.seen(5)
    async with asyncio.timeout(10):
        await postgres.stop("fast")
    await postgres.start()


@pytest.mark.service
async def test_frames_that_nobody_receives_wait_in_the_server(postgres: PostgresServer) -> None:
    """Reading pauses, so that memory is bounded; later every message comes, and the stream ends when it is closed."""
    options = ReplicationOptions.read({"dsn": postgres.dsn(), "connect_timeout_s": 5})
    await postgres.execute("CREATE PUBLICATION none")
    await postgres.fetch("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    start = "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'none', messages 'true')"

    async def work() -> None:
        link = await BoundedConnection.connect(options, prefix=PREFIX, limit_bytes=MIB)
        await link.start(start, 5)
        for _ in range(40):
            await emit_large(postgres, PREFIX, 1)
        await until(lambda: link._is_paused)
        assert link._reader.held_bytes < 3 * MIB
        large = 0
        while large < 40:
            frames = await link.receive()
            large += sum(len(frame) > MIB for frame in frames)
            assert link._reader.held_bytes < 3 * MIB
        assert link.silent_s == 0
        await link.close(status_update(received=0, confirmed=0, unix_us=0, want_reply=False))
        assert link._ended
        await postgres.slots_released()

    assert await on_uvloop(work) == []


async def query(link: BoundedConnection) -> None:
    await link.query("SELECT 1", 1)


async def send(link: BoundedConnection) -> None:
    for _ in range(2):
        link.send(b"r" + bytes(33))


async def close(link: BoundedConnection) -> None:
    await link.close(b"r" + bytes(33))


@pytest.mark.service
async def test_queries_and_a_lost_transport(postgres: PostgresServer) -> None:
    """Answers and errors are those of a `ReplicationConnection`; a connection that is lost raises `StreamLost` only."""
    options = ReplicationOptions.read({"dsn": postgres.dsn(), "connect_timeout_s": 5})

    async def connect() -> BoundedConnection:
        return await BoundedConnection.connect(options, prefix=PREFIX, limit_bytes=MIB)

    async def work() -> None:
        link = await connect()
        notices: list[tuple[str, str]] = []
        link.on_notice(lambda state, text: notices.append((state, text)))
        assert await link.query("SELECT 1 AS a, NULL AS b, 'x' AS c", 5) == [{"a": "1", "b": None, "c": "x"}]
        with pytest.raises(ServerError, match=r"division by zero \(22012\)"):
            await link.query("SELECT 1 / 0", 5)
        await link.query("DO $$ BEGIN RAISE WARNING 'careful'; END $$", 5)
        assert notices == [("01000", "careful")]
        with pytest.raises(ServerError, match=r"\(42704\)"):
            await link.start("START_REPLICATION SLOT missing LOGICAL 0/0", 5)
        with pytest.raises(NoAnswer):
            await link.query("SELECT pg_sleep(9)", 0.1)
        await link.close()

        for call in (query, BoundedConnection.receive, send, close):
            link = await connect()
            link._transport.abort()
            with suppress(StreamLost):
                await call(link)
            await link.close()
            await link.close()

        link = await connect()
        (row,) = await link.query("SELECT pg_backend_pid() AS pid", 5)
        assert row["pid"] == str(link.pid)
        await asyncio.gather(postgres.execute("SELECT pg_terminate_backend($1)", link.pid), ended(link))
        await link.close()

    async def ended(link: BoundedConnection) -> None:
        with pytest.raises(StreamLost):
            await link.query("SELECT pg_sleep(9)", 9)

    assert await on_uvloop(work) == []
