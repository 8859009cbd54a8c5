"""Databases with encodings other than UTF-8: their text is read as it is stored, and a bad value costs one row."""

import asyncio

import msgspec
import psycopg
import pytest

from backends.contract import Captured, Rejected
from backends.postgres.backfill.table_backfill import TableBackfill
from backends.postgres.encodings import codec_of, readable, readable_name, why_not_text
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.postgres.reading import CONTEXT, make_backend, reading
from tests.postgres_server import PostgresServer

TABLE = (
    "CREATE TABLE caf\xe9 (round_id bigint PRIMARY KEY, game_slug text NOT NULL, finished_at timestamptz DEFAULT now(),"
    " \xe9xtras text, note text)"
)
ENCODINGS = {
    # encoding: its bytes of é, text that the encoding has, as stored and as a round shows it, and text that it lacks
    "WIN1252": (b"\xe9", b"\x80 1", "€ 1", b"\x81"),
    "LATIN1": (b"\xe9", b"\xa3 1", "£ 1", None),
    "SQL_ASCII": ("é".encode(), "€ 1".encode(), "€ 1", b"\xff"),
    "UTF8": ("é".encode(), "€ 1".encode(), "€ 1", None),
}


def test_each_encoding_of_a_server_has_a_codec() -> None:
    """Those that Python lacks are None: the server converts them."""
    assert codec_of("latin10") == "iso8859_16"
    assert codec_of("WIN1252") == "cp1252"
    assert codec_of("EUC_TW") is codec_of("MULE_INTERNAL") is None
    assert b"\xbf".decode(codec_of("LATIN9") or "") == "\xbf"


def test_names_that_are_no_text_remain_different() -> None:
    """Such a name is shown with its bytes, and stops nothing."""
    assert readable(b"a\xff") == "a\\xff"
    assert readable(b"a\xe9", "cp1252") == "aé"
    assert readable_name(b"a\xe9".decode("utf-8", "surrogateescape"), "cp1252") == "aé"
    assert readable_name("aé", "utf-8") == "aé"
    with pytest.raises(UnicodeDecodeError) as error:
        b"caf\x81".decode("cp1252")
    assert why_not_text(error.value, "cp1252") == r"the row is not WIN1252: byte 0x81 in 'caf\x81'"


@pytest.mark.service
async def test_text_of_any_encoding_is_read_or_rejected(any_postgres: PostgresServer, nats: NatsServer) -> None:
    """A value that the encoding does not have rejects its row; in a column that we do not read, it changes nothing."""
    for encoding in ENCODINGS:
        await any_postgres.execute(
            f"CREATE DATABASE {encoding} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        await _read_rows(any_postgres, nats, encoding)
    await _read_message(any_postgres, "LATIN1")


async def _read_message(server: PostgresServer, encoding: str) -> None:
    """Read a logical message whose prefix and content are not ASCII."""
    database = encoding.lower()
    backend = make_backend(server, server.dsn(database), message_prefix="é", slot="messages", publication="messages")
    async with reading(backend) as reader:
        content = '{"round_id": 9, "game_slug": "crash", "finished_at": "2026-01-18T10:00:30Z", "extras": {"a": "£"}}'
        await server.execute("SELECT pg_logical_emit_message(true, 'é', $1::text)", content, database=database)
        await reader.seen(1)
    assert reader.rounds[0].extras == '{"a":"£"}'


async def _read_rows(server: PostgresServer, nats: NatsServer, encoding: str) -> None:
    letter, stored, shown, bad = ENCODINGS[encoding]
    dsn = server.dsn(encoding.lower())

    def write(*rows: tuple[bytes, bytes]) -> None:
        """Write rows as a client of the same encoding does: the server converts nothing."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.pgconn.exec_(f"SET client_encoding TO '{encoding}'".encode())
            if not rows:
                created = connection.pgconn.exec_(TABLE.encode("latin1").replace(b"\xe9", letter))
                assert not created.error_message, created.error_message
            for number, (text, note) in enumerate(rows, start=1):
                sql = b"INSERT INTO caf%b (round_id, game_slug, %bxtras, note) VALUES (%d, 'crash', '%b', '%b')"
                result = connection.pgconn.exec_(sql % (letter, letter, number, b'{"point": "%b"}' % text, note))
                assert not result.error_message, result.error_message

    await asyncio.to_thread(write)
    bad_rows = [] if bad is None else [(b"1", bad), (bad, b"")]
    backend = make_backend(server, dsn, table="café", extras_column="éxtras", slot=f"s_{encoding.lower()}")
    async with reading(backend) as reader:
        await asyncio.to_thread(write, (stored, b""), *bad_rows, (b"2", b""))
        await reader.seen(2 + len(bad_rows))
    first, *_ = reader.rounds
    assert first.extras == f'{{"point": "{shown}"}}'
    assert reader.ids == ([1, 2] if bad is None else [1, 2, 4])
    assert [item.key for item in reader.rejected] == ([] if bad is None else ["café:crash:3"])
    assert all("the row is not" in item.reason for item in reader.rejected)

    backfill = TableBackfill(backend._options, CONTEXT, LogSettings(url=nats.url))
    async with backfill.open():
        items = [item async for batch in backfill.read() for item in batch]
    found = [msgspec.structs.replace(item.round, timestamp=0) for item in items if isinstance(item, Captured)]
    assert found == [msgspec.structs.replace(round_, timestamp=0) for round_ in reader.rounds]
    rejected = [item for item in items if isinstance(item, Rejected)]
    live = [(item.key, item.reason, item.raw) for item in reader.rejected]
    assert [(item.key, item.reason, item.raw) for item in rejected] == live
