"""The ingest process as a whole, on a real database and log: metrics, probes, and rejects."""

import asyncio
import re

import aiohttp
import pytest

from backends.log_settings import LogSettings
from backends.observed import Observed
from relay.errors import StartError
from relay.ingest import watched_ingest
from relay.ingest_metrics import IngestMetrics, serving_metrics
from relay.sections import BackendSettings, IngestSettings
from relay.settings import Settings
from tests.backends.harness import stored
from tests.backends.test_rejects import kept
from tests.nats import NatsServer
from tests.postgres.ingesting import CONTEXT, notify_backend, set_up_notify, until
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


async def test_metrics_and_probes_tell_what_the_process_does(
    postgres: PostgresServer, nats: NatsServer, unused_tcp_port: int
) -> None:
    """Rounds in, acked and rejected, latency, state: all there, and ready only while the source is."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    settings = Settings(
        nats=LogSettings(url=nats.url),
        backend=BackendSettings(name="postgres-notify"),
        ingest=IngestSettings(host="127.0.0.1", port=unused_tcp_port),
    )
    backend = notify_backend(postgres, retry_max_s=0.2)
    base = f"http://127.0.0.1:{unused_tcp_port}"

    async with aiohttp.ClientSession(base) as client, watched_ingest(settings, backend, CONTEXT):
        await until(lambda: backend.status.state == "reading")
        await postgres.insert_rounds(1, 10)
        await postgres.execute("INSERT INTO rounds VALUES (11, 'crash', NULL, NULL, '{}')")
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

    values = dict(re.findall(r"^(ingest_\S+) (\S+)$", text, re.MULTILINE))
    assert values["ingest_rounds_read_total"] == "11.0"
    assert values["ingest_rounds_acked_total"] == "10.0"
    assert values["ingest_rounds_rejected_total"] == "1.0"
    assert values["ingest_rounds_unacked"] == "0.0"
    assert values['ingest_state{backend="postgres-notify",state="reading"}'] == "1.0"
    assert values["ingest_commit_to_ack_seconds_count"] == "10.0"
    assert len(await stored(nats)) == 10
    assert [item["key"] for item in await kept(nats, "rejects.postgres-notify")] == ["public.rounds:crash:11"]


async def test_busy_port_is_one_sentence_with_the_setting(postgres: PostgresServer) -> None:
    """The operator is told which variable to change."""
    busy = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    metrics = IngestMetrics(Observed(notify_backend(postgres)), "postgres-notify")
    settings = IngestSettings(host="127.0.0.1", port=busy.sockets[0].getsockname()[1])
    with pytest.raises(StartError, match="RELAY_INGEST_PORT"):
        async with serving_metrics(metrics, settings):
            pass
    busy.close()
