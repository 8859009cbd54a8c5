"""Corrections and voids from PostgreSQL to clients: what those that ask get, and what the others get."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from google.protobuf.message import Message

from auth.key_secret import DEMO_KEY
from backends.contract import Backend
from backends.postgres.notify.postgres_notify import PostgresNotify
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.postgres.source_admin import admin_of
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.postgres.conftest import postgres as postgres
from tests.postgres.ingesting import CONTEXT, ingesting
from tests.postgres.test_feed_into_log import log_of
from tests.postgres_server import PostgresServer
from tests.resume.test_corrections import get, pages
from tests.resume.viewers import watch
from tests.rpc.caller import read, read_to_end
from tests.rpc.conftest import StartRelay
from tests.rpc.conftest import start_relay as start_relay

pytestmark = pytest.mark.service

TABLE_5: Final = Path(__file__).parents[1] / "postgres/tables/5-corrected-and-voided.sql"
DICE: Final = """
CREATE TABLE dice (id bigint, day int, roll text, done timestamptz NOT NULL DEFAULT now()) PARTITION BY LIST (day);
CREATE TABLE dice_1 PARTITION OF dice FOR VALUES IN (1);
CREATE TABLE dice_2 PARTITION OF dice FOR VALUES IN (2);
"""
OPTIONS: Final = {
    "corrections": "true",
    "tables": (
        '[{"table": "rounds", "voided_when": "voided", "deletes": "void"},'
        ' {"table": "dice", "round_id_column": "id", "game_slug": "dice", "finished_at_column": "done",'
        '  "extras_columns": "point=roll", "deletes": "void"}]'
    ),
}
SET: Final = "UPDATE rounds SET"
TRANSACTIONS: Final[Sequence[tuple[str, str]]] = (
    (f'{SET} extras = \'{{"point": "2.00"}}\' WHERE round_id = 1', "crash 1.3 2.00"),
    (f"{SET} voided = false WHERE round_id = 2", "crash 2.3 9.99"),
    ("INSERT INTO rounds VALUES (3, 'crash', now(), '{\"point\": \"1.20\"}')", "crash 3.3 1.20"),
    (f"{SET} finished_at = NULL WHERE round_id = 1", "crash 1.4 void"),
    (f"{SET} finished_at = now() WHERE round_id = 1", "crash 1.5 2.00"),
    (f"{SET} round_id = 4 WHERE round_id = 2", "crash 2.4 void, crash 4 9.99"),
    (
        f"""
        INSERT INTO rounds VALUES (5, 'crash');
        {SET} finished_at = now(), extras = '{{"point": "3.00"}}' WHERE round_id = 5;
        {SET} extras = '{{"point": "3.10"}}' WHERE round_id = 5;
        {SET} voided = true WHERE round_id = 5;
        {SET} voided = false WHERE round_id = 5;
        """,  # noqa: S608
        "crash 5 3.00, crash 5.2 3.10, crash 5.3 void, crash 5.4 3.10",
    ),
    (f"{SET} game_slug = game_slug, voided = voided", ""),
    ("INSERT INTO dice VALUES (1, 1, '6'), (2, 2, '3'), (3, 2, '1')", "dice 1 6, dice 2 3, dice 3 1"),
    ("UPDATE dice SET day = 2 WHERE id = 1; UPDATE dice SET day = 1, roll = '4' WHERE id = 2", "dice 2.2 4"),
    ("DROP TABLE dice_1", ""),
    ("TRUNCATE dice", ""),
    ("TRUNCATE rounds", ""),
    ("INSERT INTO rounds VALUES (9, 'crash', now(), '{\"point\": \"7.00\"}')", "crash 9 7.00"),
)
EXPECTED: Final = [
    *("crash 1 2.00", "crash 2 9.99", "crash 3 1.10", "crash 1.2 2.01", "crash 2.2 void", "crash 3.2 void"),
    *(entry for _, entries in TRANSACTIONS if entries for entry in entries.split(", ")),
]


def is_plain(entry: str) -> bool:
    return "." not in entry.split()[1]


def shown(entries: Iterable[Any]) -> list[str]:
    """Write what came as in `EXPECTED`, from JSON or from protobuf."""
    found = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else _fields(entry)
        point = "void" if fields.get("voided") else msgspec.json.decode(fields["extras"])["point"]
        revision = f".{fields['revision']}" if fields.get("revision") else ""
        found.append(f"{fields['game_slug']} {fields['round_id']}{revision} {point}")
    return found


def _fields(entry: Message) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("game_slug", "round_id", "revision", "voided", "extras")}


async def write(server: PostgresServer) -> None:
    """Do what the schema's file does to its table, and the rest, each in a transaction of its own."""
    _, insert, changes = TABLE_5.read_text().partition("INSERT")
    for sql in [*f"{insert}{changes}".split(";\n")[:4], *(sql for sql, _ in TRANSACTIONS)]:
        await server.execute(sql)


async def make_tables(server: PostgresServer) -> None:
    await server.execute(TABLE_5.read_text().partition("INSERT")[0])
    await server.execute(DICE)


FEEDS: Final[dict[str, Callable[..., Backend[Any]]]] = {
    "postgres-notify": PostgresNotify,
    "postgres-replication": PostgresReplication,
}


def _short(entry: str) -> str:
    """Write an entry of `log_of` as in `EXPECTED`."""
    head, _, extras = entry.replace(" revision ", ".").replace("voided", "void").partition(" {")
    return f"{head} {msgspec.json.decode('{' + extras)['point']}" if extras else head


@pytest.mark.parametrize("name", FEEDS)
async def test_feed_gives_the_same_log_as_replication(postgres: PostgresServer, nats: NatsServer, name: str) -> None:
    """Also where rows move between partitions; TRUNCATE and a dropped partition void nothing."""
    await make_tables(postgres)
    options = {"dsn": postgres.dsn(), "feed": "true", **OPTIONS}
    await admin_of(name, options).set_up(None)
    async with ingesting(FEEDS[name](options, CONTEXT), nats):
        await write(postgres)
        entries = await log_of(nats, len(EXPECTED))
    assert [_short(entry) for entry in entries] == EXPECTED


async def test_clients_that_ask_and_others_over_every_protocol(
    postgres: PostgresServer, nats: NatsServer, start_relay: StartRelay
) -> None:
    """Live, after a cursor, the last rounds, with a filter, and in history; plain clients get the six members only."""
    await make_tables(postgres)
    options = {"dsn": postgres.dsn(), **OPTIONS}
    await admin_of("postgres-replication", options).set_up(None)
    async with (
        ingesting(PostgresReplication(options, CONTEXT), nats),
        start_relay(replay={"ring_rounds": 4}) as relay,
        relay.caller() as grpc,
        watch(relay.url, "", corrections=1) as asking,
        watch(relay.url, "", corrections=1, protocol="sse") as asking_sse,
        watch(relay.url, "") as plain,
        watch(relay.url, "crash", protocol="sse") as plain_sse,
        grpc.stream(pb.StreamAllRequest(corrections=True)) as asking_grpc,
        grpc.stream(pb.StreamByGameRequest(game_slug="crash")) as plain_grpc,
    ):
        await write(postgres)
        of_crash = [entry for entry in EXPECTED if entry.startswith("crash")]
        live = [(asking, EXPECTED), (asking_sse, EXPECTED), (plain, [*filter(is_plain, EXPECTED)])]
        for viewer, expected in [*live, (plain_sse, [*filter(is_plain, of_crash)])]:
            await viewer.until_round(9)
            assert shown(viewer.seen) == expected
        assert shown(await read(asking_grpc, len(EXPECTED))) == EXPECTED
        plain_of_crash = [*filter(is_plain, of_crash)]
        assert shown(await read(plain_grpc, len(plain_of_crash))) == plain_of_crash
        given = ["round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp", "cursor"]
        assert [list(each) for each in plain.seen] == [given] * len(plain.seen)
        assert [each for each in asking.seen if "revision" not in each] == plain.seen

        middle = EXPECTED.index("crash 1.5 2.00")
        cursor = asking.seen[middle]["cursor"]
        last = of_crash[of_crash.index("crash 5 3.00") :]
        high = [entry for entry in of_crash if not is_plain(entry) or float(entry.split()[2]) >= 5]
        starts: list[tuple[dict[str, Any], pb.Start, list[str]]] = [
            ({"after": cursor}, pb.Start(after=cursor), of_crash[of_crash.index("crash 1.5 2.00") + 1 :]),
            ({"last": 2}, pb.Start(last=2), last),
            ({"last": 100, "min_point": 5}, pb.Start(last=100), high),
        ]
        for query, start, expected in starts:
            for asks in (True, False):
                wanted = [entry for entry in expected if asks or is_plain(entry)]
                for protocol in ("ws", "sse"):
                    flag: dict[str, Any] = {"corrections": 1} if asks else {}
                    async with watch(relay.url, "crash", protocol=protocol, **flag, **query) as viewer:
                        await viewer.until_rounds(len(wanted))
                    assert shown(viewer.rounds) == wanted, (protocol, query, asks)
                filters = pb.Filter(min_point=5) if "min_point" in query else None
                request = pb.StreamByGameRequest(game_slug="crash", start=start, corrections=asks, filter=filters)
                async with grpc.stream(request) as call:
                    assert shown(await read(call, len(wanted))) == wanted, (query, asks)
        await _past(relay, grpc)


async def _past(relay: Any, grpc: Any) -> None:
    """Compare history, the latest round and a replay in bulk."""
    headers = {"X-API-Key": DEMO_KEY}
    for asks in (True, False):
        expected = [entry for entry in EXPECTED if asks or is_plain(entry)]
        flag = {"corrections": "1"} if asks else {}
        assert shown(await pages(relay.url, "/api/history", limit="5", **flag)) == expected
        history = await grpc.ask(pb.GetHistoryRequest(limit=100, corrections=asks))
        assert shown(history.rounds)[::-1] == expected
        batches, status = await read_to_end(grpc.call(pb.ReplayRequest(corrections=asks)))
        assert status is None
        assert shown(round_ for batch in batches for round_ in batch.rounds) == expected
        async with aiohttp.ClientSession(headers=headers) as http:
            message = {"game_type": "", "limit": 100, "corrections": asks}
            async with http.post(relay.proxy("GetHistory"), json=message) as answer:
                assert shown((await answer.json())["rounds"])[::-1] == expected
        for game, latest in (("crash", "crash 9 7.00"), ("dice", "dice 3 1")):
            _, answer, _ = await get(relay.url, f"/api/latest/{game}", **flag)
            assert (answer["round_id"], answer.get("revision")) == (int(latest.split()[1]), None)
            assert shown([await grpc.ask(pb.GetLatestRequest(game_slug=game, corrections=asks))]) == [latest]
