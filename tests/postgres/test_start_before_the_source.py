"""Ingest that starts before its database waits for what heals by itself, and ends with a sentence for what does not."""

from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from backends.backend_settings import BackendSettings
from backends.contract import Backend, SourceError, SourceUnavailable
from backends.ingest import run_ingest
from backends.ingest.ingest_settings import IngestSettings
from backends.postgres.database import is_transient
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection
from backends.postgres.replication.slot import ReplicationOptions
from backends.registry import make_backend
from relay.config.settings import Settings
from roundlog.log_settings import LogSettings
from tests.backends.harness import stored
from tests.nats import NatsServer
from tests.postgres.ingesting import CONTEXT, set_up_notify
from tests.postgres.test_ingest_process import exposed_ingest
from tests.postgres_server import PostgresServer
from tests.waiting import until

_BACKENDS: Final = pytest.mark.parametrize("name", ["postgres-notify", "postgres-replication"])


def backend_at(name: str, dsn: str) -> Backend[Any]:
    more = {"create": "true"} if name == "postgres-replication" else {}
    return make_backend(name, {"dsn": dsn, "connect_timeout_s": "2", **more}, CONTEXT)


async def opened(name: str, dsn: str) -> None:
    async with backend_at(name, dsn).open():
        pass


@pytest.mark.service
@_BACKENDS
async def test_ingest_waits_for_its_database_and_then_works(
    postgres: PostgresServer, nats: NatsServer, name: str, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not ready meanwhile, and says why."""
    monkeypatch.setattr(run_ingest, "_PAUSE_S", (0.05, 0.1))
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    await postgres.stop()
    settings = Settings(
        nats=LogSettings(url=nats.url),
        backend=BackendSettings(name=name),
        ingest=IngestSettings(host="127.0.0.1", port=unused_tcp_port),
    )
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{settings.ingest.port}") as client,
        exposed_ingest(settings, backend_at(name, postgres.dsn())) as work,
    ):

        async def readiness() -> dict[str, str]:
            async with client.get("/readyz") as answer:
                body: dict[str, str] = await answer.json()
            return body

        async def waits() -> bool:
            return (await readiness()).get("reason") == "source_connecting"

        async def works() -> bool:
            return (await readiness())["status"] == "ready"

        await until(waits)
        assert "127.0.0.1" in (await readiness())["detail"]
        await postgres.start()
        await until(works)
        await postgres.insert_rounds(1, 10)

        async def is_stored() -> bool:
            return len(await stored(nats)) == 10

        await until(is_stored)
        assert not work.done()


@pytest.mark.service
@_BACKENDS
async def test_what_an_operator_has_to_mend_ends_ingest_with_a_sentence(postgres: PostgresServer, name: str) -> None:
    """An unknown database or role is a mistake, which waiting does not mend."""
    await postgres.make_rounds_table()
    for dsn, says in ((postgres.dsn("nowhere"), "nowhere"), (postgres.dsn(user="nobody"), "nobody")):
        with pytest.raises(SourceError, match=says) as caught:
            await opened(name, dsn)
        assert not isinstance(caught.value, SourceUnavailable)
        assert "\n" not in str(caught.value)


@pytest.mark.service
@_BACKENDS
async def test_what_heals_is_waited_for(postgres: PostgresServer, name: str, unused_tcp_port: int) -> None:
    """No address, nobody who listens or answers, and a server without a free connection."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    for dsn in ("postgresql://postgres@no-such-host.invalid/postgres", f"postgresql://p@127.0.0.1:{unused_tcp_port}/p"):
        with pytest.raises(SourceUnavailable):
            await opened(name, dsn)
    postgres.freeze()
    try:
        with pytest.raises(SourceUnavailable):
            await opened(name, postgres.dsn())
    finally:
        postgres.thaw()
    await postgres.restart(max_connections="4", superuser_reserved_connections="0", max_wal_senders="1")
    sender = await ReplicationConnection.connect(ReplicationOptions.read({"dsn": postgres.dsn()}))
    held = [await postgres.connect() for _ in range(4)]
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await postgres.connect()
    with pytest.raises(SourceUnavailable):
        await opened(name, postgres.dsn())
    await sender.close()
    for connection in held:
        await connection.close()


@pytest.mark.parametrize(
    ("sqlstate", "heals"),
    [
        *((code, True) for code in ("57P03", "53300", "57P01", "57P02", "08006", "53400")),
        *((code, False) for code in ("28P01", "28000", "3D000", "42501", "42P01")),
    ],
)
def test_sqlstate_decides(sqlstate: str, *, heals: bool) -> None:
    """Starting, full, shutting down; against a wrong password, an unknown role or database, a missing privilege."""
    assert is_transient(sqlstate) is heals
