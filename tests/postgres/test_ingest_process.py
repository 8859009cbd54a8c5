"""The ingest process as a whole, on a real database and log: metrics, probes, and rejects."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from backends.backend_settings import BackendSettings
from backends.backlog import BacklogWatch
from backends.contract import Backend
from backends.ingest.ingest_metrics import IngestMetrics
from backends.ingest.ingest_settings import IngestSettings
from backends.ingest.instrumented import Instrumented
from backends.ingest.process import watched_ingest
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.postgres.replication.slot import SlotState
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.window.acks import Stats
from relay.commands.ingest_command import exposing
from relay.config.settings import Settings
from relay.errors import StartError
from roundlog.log_settings import LogSettings
from tests.backends.harness import stored
from tests.backends.publish.test_rejects import kept
from tests.nats import NatsServer
from tests.postgres.ingesting import CONTEXT, notify_backend, set_up_notify
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service


def served_at(port: int, nats: NatsServer) -> Settings:
    """Settings of an ingest by postgres-notify with metrics and probes at a port."""
    return Settings(
        nats=LogSettings(url=nats.url),
        backend=BackendSettings(name="postgres-notify"),
        ingest=IngestSettings(host="127.0.0.1", port=port),
    )


def exposed_ingest(settings: Settings, backend: Backend[Any]) -> AbstractAsyncContextManager[asyncio.Task[Stats]]:
    """Run a backend as the command ``ingest`` does, with its probes and metrics."""
    return watched_ingest(settings, backend, CONTEXT, expose=exposing(settings.ingest))


async def test_metrics_and_probes_show_the_state_of_the_process(
    postgres: PostgresServer, nats: NatsServer, unused_tcp_port: int
) -> None:
    """Metrics count rounds read, acked and rejected; the process is ready only while the source is."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    settings = served_at(unused_tcp_port, nats)
    backend = notify_backend(postgres, retry_max_s=0.2)
    base = f"http://127.0.0.1:{unused_tcp_port}"

    async with (
        aiohttp.ClientSession(base) as client,
        exposed_ingest(settings, backend),
    ):
        await until(lambda: backend.status.state == "reading")
        await postgres.insert_rounds(1, 10)
        await postgres.execute("INSERT INTO rounds VALUES (11, 'nowhere', NULL, now(), '{}')")
        await until(lambda: backend.status.safe == 11)
        async with client.get("/readyz") as answer:
            assert answer.status == 200
        async with client.get("/metrics") as answer:
            text = await answer.text()
        await postgres.stop()
        await until(lambda: backend.status.state == "connecting")
        async with client.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["reason"]) == (503, "source_connecting")
        async with client.get("/healthz") as answer:
            assert answer.status == 200

    values = values_in(text)
    assert values["ingest_rounds_read_total"] == "11.0"
    assert values["ingest_rounds_acked_total"] == "10.0"
    assert values["ingest_rounds_rejected_total"] == "1.0"
    assert values["ingest_rounds_unacked"] == "0.0"
    assert values['ingest_state{backend="postgres-notify",state="reading"}'] == "1.0"
    assert values["ingest_commit_to_ack_seconds_count"] == "10.0"
    assert len(await stored(nats)) == 10
    assert [item["key"] for item in await kept(nats, "rejects.postgres-notify")] == ["public.rounds:nowhere:11"]


async def test_busy_port_is_one_sentence_with_the_setting(postgres: PostgresServer) -> None:
    """The error names the variable to change."""
    backend = notify_backend(postgres)
    metrics = IngestMetrics(Instrumented(backend), "postgres-notify", BacklogWatch(backend))
    with socket.create_server(("127.0.0.1", 0)) as busy:
        settings = IngestSettings(host="127.0.0.1", port=busy.getsockname()[1])
        with pytest.raises(StartError, match="RELAY_INGEST_PORT"):
            async with exposing(settings)(metrics):
                pass


def values_in(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(ingest_\S+) (\S+)$", text, re.MULTILINE))


@asynccontextmanager
async def watched(
    postgres: PostgresServer, nats: NatsServer, port: int, **publish: Any
) -> AsyncIterator[tuple[PostgresReplication, aiohttp.ClientSession]]:
    """Run ingest by replication with its port, and yield a client of it."""
    options = {"name": "postgres-replication", "dsn": postgres.dsn(), "create": True}
    settings = Settings(
        nats=LogSettings(url=nats.url),
        publish=PublisherSettings(**publish),
        backend=BackendSettings.model_validate(options),
        ingest=IngestSettings(host="127.0.0.1", port=port),
    )
    backend = PostgresReplication(settings.backend.options, CONTEXT)
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        exposed_ingest(settings, backend),
    ):
        await until(lambda: backend.status.state == "streaming")
        yield backend, client


async def scraped(client: aiohttp.ClientSession, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Scrape until `holds` is true; return the values."""

    async def scrape() -> dict[str, str] | None:
        async with client.get("/metrics") as answer:
            values = values_in(await answer.text())
        return values if holds(values) else None

    return await until(scrape)


async def test_rounds_held_back_by_confirm_lag_are_acked_and_the_process_is_ready(
    postgres: PostgresServer, nats: NatsServer, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds whose confirmation is held back are stored: they do not count as unacked, late or stuck."""
    monkeypatch.setattr("backends.ingest.ingest_metrics._STUCK_S", 0.5)
    await postgres.make_rounds_table()
    async with watched(postgres, nats, unused_tcp_port, confirm_lag_s=600) as (backend, client):
        await postgres.insert_rounds(1, 100)
        values = await scraped(client, lambda values: values["ingest_rounds_acked_total"] == "100.0")
        assert values["ingest_rounds_unacked"] == "0.0"
        assert values["ingest_commit_to_ack_seconds_count"] == "100.0"
        values = await scraped(client, lambda values: float(values.get("ingest_lag_seconds", "0")) > 0.5)
        assert int(float(values["ingest_lag_bytes"])) > 5000
        async with client.get("/readyz") as answer:
            assert (answer.status, backend.status.state) == (200, "streaming")


async def test_wal_kept_during_an_outage_of_the_log_is_measured_and_the_state_says_why(
    postgres: PostgresServer, nats: NatsServer, unused_tcp_port: int
) -> None:
    """The lag is measured by the server, so it includes WAL that we have not read."""
    await postgres.make_rounds_table()
    async with watched(postgres, nats, unused_tcp_port, max_in_flight=64) as (backend, client):
        await nats.kill()
        await postgres.insert_rounds(1, 20_000)
        await until(lambda: backend.status.state == "left")
        async with client.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["reason"]) == (503, "log_stuck")
        values = await scraped(client, lambda values: float(values.get("ingest_lag_bytes", "0")) > 1_000_000)
        assert values['ingest_state{backend="postgres-replication",state="left"}'] == "1.0"

        await nats.start()
        await until(lambda: backend.status.state == "streaming")
        await scraped(client, lambda values: values["ingest_rounds_acked_total"] == "20000.0")
        await scraped(client, lambda values: float(values.get("ingest_lag_bytes", "1e9")) < 100_000)


async def test_backlog_of_notify_is_counted_in_rows(
    postgres: PostgresServer, nats: NatsServer, unused_tcp_port: int
) -> None:
    """The metric shows by how many rows polling is behind."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    settings = served_at(unused_tcp_port, nats)
    backend = notify_backend(postgres)
    base = f"http://127.0.0.1:{unused_tcp_port}"
    async with (
        aiohttp.ClientSession(base) as client,
        exposed_ingest(settings, backend),
    ):
        await until(lambda: backend.status.state == "reading")
        await nats.kill()
        await postgres.insert_rounds(1, 50)
        await scraped(client, lambda values: values.get("ingest_lag_rows") == "50.0")
        await nats.start()
        values = await scraped(client, lambda values: values.get("ingest_lag_rows") == "0.0")
        assert values["ingest_lag_seconds"] == "0.0"


@pytest.mark.parametrize("state", sorted(set(SlotState) - {"streaming", "standby"}))
def test_no_state_without_rounds_counts_as_ready(state: SlotState) -> None:
    """A state that is missing in the table of states must not count as ready."""

    class Source:
        status = SimpleNamespace(state=state)

    instrumented: Instrumented[Any] = Instrumented(Source())  # type: ignore[arg-type]
    instrumented.is_open = True
    obstacle = IngestMetrics(instrumented, "postgres-replication", BacklogWatch(Source())).obstacle()
    assert obstacle == ("log_stuck" if state is SlotState.LEFT else f"source_{state}")
