"""Real relays report what keys use and which credentials they refused; both are read from NATS."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import aiohttp
import grpc
import pytest
from structlog.testing import capture_logs

from auth.key import InvalidCredential
from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY, generate
from auth.tokens import TokenSigner
from relay.audit.audit_entry import AuditEntry
from relay.audit.audit_trail import NatsAuditTrail
from relay.audit.refused_credentials import RefusedCredentials
from relay.config.admin_sections import AuditSettings, UsageSettings
from relay.config.sections import DrainSettings, GrpcSettings, HttpSettings
from relay.config.settings import Settings
from relay.serve import running_relay
from relay.usage.account import Accounts
from relay.usage.usage_form import KeyUsage, hour_of, total
from relay.usage.usage_reader import UsageReader
from relay.usage.usage_reporter import UsageReporter
from roundlog.client.connection import Connection, connect
from roundlog.log_settings import LogSettings
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, token_of, wait_ready
from tests.waiting import until

pytestmark = pytest.mark.service

SETTINGS: Final = UsageSettings(interval_s=1)


@pytest.fixture
async def connection(nats: NatsServer) -> AsyncIterator[Connection]:
    """A connection to NATS."""
    async with connect(LogSettings(url=nats.url), name="test") as connection:
        yield connection


def reader(connection: Connection) -> UsageReader:
    return UsageReader(connection, SETTINGS, replicas=1, create=True)


async def read_rounds(content: aiohttp.StreamReader, count: int) -> int:
    """Read an event stream up to its `count`-th round; return the bytes of the blocks of rounds."""
    size = found = 0
    while found < count:
        line = await content.readline()
        assert line, "the stream has ended"
        if line.startswith(b"id: "):
            size += len(line)
        elif line.startswith(b"data: "):
            size += len(line) + 1
            found += 1
    return size


async def test_two_relays_report_what_their_clients_use(
    connection: Connection, start_relay: StartRelay, publish: Publish, client: aiohttp.ClientSession
) -> None:
    """Live and past rounds, over event streams, WebSocket and REST, and links now and at most; exact over both."""
    await publish("crash", 1, 2)
    usage = SETTINGS.model_dump()
    async with start_relay(usage=usage) as one, start_relay(usage=usage) as two, AsyncExitStack() as streams:
        live = [
            await streams.enter_async_context(client.get(f"{url}/sse/crash", headers=KEY_HEADER))
            for url in (one, one, two)
        ]
        past = await streams.enter_async_context(
            client.get(f"{two}/sse/crash?from=2020-01-01T00:00:00Z", headers=KEY_HEADER)
        )
        token = await token_of(client, two)
        socket = await streams.enter_async_context(client.ws_connect(f"{two}/ws/crash", protocols=[token]))
        await publish("crash", 3, 4, 5)
        await asyncio.gather(*(read_rounds(stream.content, 3) for stream in live), read_rounds(past.content, 5))
        for _ in range(3):
            await socket.receive_json()
        async with client.get(f"{one}/api/history/crash", headers=KEY_HEADER) as answer:
            assert len(await answer.json()) == 5
        async with client.get(f"{one}/api/latest/nope", headers=KEY_HEADER) as answer:
            assert answer.status == 404

        async def complete() -> KeyUsage | None:
            found = total((await reader(connection).since(time.time() - 3600)).get("demo", {}))
            return found if found.rounds >= 22 and found.requests >= 3 else None

        open_ = await until(complete, within_s=8)
        assert (open_.links, open_.links_max, open_.links_opened) == (5, 5, 5)
        assert open_.rounds == 3 * 3 + 5 + 3 + 5  # three live, one from the past, the socket, history
        assert open_.requests == 3  # the token, history, and the one for an unknown game
        assert open_.bytes > 22 * 150
        assert 0 <= time.time() - open_.last_used < 60

    closed = total((await reader(connection).since(time.time() - 3600))["demo"])
    assert (closed.links, closed.links_max, closed.rounds) == (0, 5, 22)  # the last report is made at the end


async def test_bytes_are_those_of_the_blocks(
    connection: Connection, start_relay: StartRelay, publish: Publish, client: aiohttp.ClientSession
) -> None:
    """What a client receives of rounds is what is counted, with the frames of its protocol."""
    async with start_relay(usage=SETTINGS.model_dump()) as url:
        async with client.get(f"{url}/sse/crash", headers=KEY_HEADER) as stream:
            await publish("crash", *range(1, 21))
            size = await read_rounds(stream.content, 20)
        chunk_heads = 20 * len(b"fff\r\n\r\n")

    counted = total((await reader(connection).since(time.time() - 3600))["demo"])
    assert counted.rounds == 20
    assert size <= counted.bytes <= size + chunk_heads


async def test_calls_of_grpc_are_counted(
    nats: NatsServer, connection: Connection, publish: Publish, client: aiohttp.ClientSession
) -> None:
    """A stream is a link, a unary call is a request."""
    await publish("crash", 1, 2, 3)
    settings = Settings(
        nats=LogSettings(url=nats.url),
        http=HttpSettings(host="127.0.0.1", port=0),
        grpc=GrpcSettings(host="127.0.0.1", port=0),
        drain=DrainSettings(grace_s=1, margin_s=1),
        usage=SETTINGS,
    )
    key = (("x-api-key", DEMO_KEY),)
    async with running_relay(settings, KeyRing.demo(), TokenSigner.ephemeral()) as at:
        await wait_ready(at.url)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{at.grpc_port}") as channel:
            history = channel.unary_unary(
                "/datastream.DataStream/GetHistory",
                request_serializer=pb.GetHistoryRequest.SerializeToString,
                response_deserializer=pb.GetHistoryResponse.FromString,
            )
            assert len((await history(pb.GetHistoryRequest(game_slug="crash"), metadata=key)).rounds) == 3
            stream = channel.unary_stream(
                "/datastream.DataStream/Replay",
                request_serializer=pb.ReplayRequest.SerializeToString,
                response_deserializer=pb.RoundBatch.FromString,
            )
            assert [len(batch.rounds) async for batch in stream(pb.ReplayRequest(), metadata=key)] == [3]

    used = total((await reader(connection).since(time.time() - 3600))["demo"])
    assert (used.requests, used.links_opened, used.rounds) == (1, 1, 6)
    assert used.log_rounds >= 3


async def test_report_that_cannot_be_stored_is_made_up_for(nats: NatsServer) -> None:
    """While NATS is away nothing is lost, and finished hours wait, a few of them."""
    now = hour_of(time.time()) + 10.0
    accounts = Accounts()
    settings = LogSettings(url=nats.url, connect_timeout_s=0.5)
    reporter = UsageReporter(accounts, lambda: iter(()), SETTINGS, settings, clock=lambda: now)
    await nats.stop()
    for hours in range(3):
        accounts.of("k").sent(hours + 1, 0)
        now = hour_of(now) + 3600.0 + hours
        await reporter._try_report()
    assert accounts.reports_failed == 3
    await nats.start()
    await reporter.report()
    await reporter._stack.aclose()

    async with connect(LogSettings(url=nats.url), name="test") as connection:
        hours_of = (await reader(connection).since(0))["k"]
    assert [hours_of[hour].rounds for hour in sorted(hours_of)] == [1, 2, 3]


async def test_refused_credentials_are_in_the_audit_log(
    connection: Connection, start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """Counted by address and credential: the key where it is known, else a part of the hash; never the secret."""
    secret, _ = generate("private")
    demo_page = "pk_live_" + "1" * 64
    async with start_relay(usage=SETTINGS.model_dump()) as url:
        for _ in range(5):
            async with client.get(f"{url}/api/games", headers={"X-API-Key": secret}) as answer:
                assert answer.status == 401
        async with client.get(f"{url}/sse?token=abc") as answer:
            assert answer.status == 401
        async with client.get(f"{url}/api/games", headers={"X-API-Key": demo_page}) as answer:
            assert answer.status == 401

    trail = NatsAuditTrail(connection, AuditSettings(), replicas=1, create=True)

    async def entries() -> list[AuditEntry] | None:
        found = await trail.newest(10, refused=True)
        return found if len(found) == 3 else None

    found = await until(entries, within_s=10)
    assert {entry.address for entry in found} == {"127.0.0.1"}
    counts = {entry.target: (entry.detail or {}).get("count") for entry in found}
    assert sorted(counts.values(), key=str) == [1, 1, 5]
    [most] = [target for target, count in counts.items() if count == 5]
    assert most.startswith("sha256:")
    assert secret[8:] not in str(found)
    assert "token" in counts


async def test_many_refused_credentials_are_few_entries(nats: NatsServer, connection: Connection) -> None:
    """20 entries in a report, and one for all others; memory is bounded."""
    refused = RefusedCredentials()
    for number in range(3_000):
        refused.add("invalid_credential", f"192.0.2.{number}", InvalidCredential("x"))
    refused.add("capacity", "192.0.2.1", InvalidCredential("not about a credential"))
    assert len(refused._found) == 1_000

    await refused.report(connection, LogSettings(url=nats.url), "r")
    found = await NatsAuditTrail(connection, AuditSettings(), replicas=1, create=True).newest(100, refused=True)

    assert len(found) == 21
    assert sum((entry.detail or {})["count"] for entry in found) == 3_000
    assert not refused.waits


async def test_metrics_have_the_figures_of_keys_on_request_only(
    start_relay: StartRelay, publish: Publish, client: aiohttp.ClientSession
) -> None:
    """Off by default: each key is a series of each metric."""
    await publish("crash", 1)
    for wanted in (False, True):
        async with start_relay(usage={"metrics": wanted}) as url:
            async with client.get(f"{url}/api/history/crash", headers=KEY_HEADER) as answer:
                assert answer.status == 200
            async with client.get(f"{url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
        found = [line for line in lines if line.startswith("relay_key_") and 'key="demo"' in line]
        assert ('relay_key_requests_total{key="demo"} 1.0' in found) is wanted
        assert ('relay_key_rounds_total{key="demo"} 1.0' in found) is wanted
        assert bool(found) is wanted
        assert "relay_usage_reports_failed_total 0.0" in lines


async def test_relay_serves_the_admin_api_when_it_has_a_port(
    nats: NatsServer, start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """Without a port there is none; with one, it is another port than that of clients, which has no such path."""
    with capture_logs() as logs:
        async with start_relay() as url, client.get(f"{url}/admin/keys") as answer:
            assert answer.status == 404
        assert [entry for entry in logs if entry["event"] == "admin_listening"] == []
        async with start_relay(admin={"port": 0}) as url:
            [listening] = [entry for entry in logs if entry["event"] == "admin_listening"]
            async with client.get(f"{listening['url']}/admin/keys") as answer:
                assert answer.status == 401
            async with client.get(f"{url}/admin/keys") as answer:
                assert answer.status == 404
