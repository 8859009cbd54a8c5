"""Rejected items are stored in a stream of their own, once, and never block rounds."""

import asyncio

import msgspec
import pytest

from backends.contract import Rejected
from backends.publish.rejects_stream import STREAM, RejectsStream
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer, nats_client

pytestmark = pytest.mark.service


def rejected(key: str, raw: bytes = b"{}") -> Rejected[int]:
    return Rejected(key, "finished_at is NULL; it must be a moment", raw, 1)


async def kept(server: NatsServer, subject: str) -> list[dict[str, object]]:
    """Read what the stream holds on a subject."""
    found = []
    async with nats_client(LogSettings(url=server.url)) as nc:
        info = msgspec.json.decode((await nc.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", 5)).data)
        for sequence in range(1, info["state"]["last_seq"] + 1):
            answer = await nc.request(f"$JS.API.STREAM.MSG.GET.{STREAM}", msgspec.json.encode({"seq": sequence}), 5)
            message = msgspec.json.decode(answer.data)["message"]
            if message["subject"] == subject:
                found.append(msgspec.json.decode(msgspec.convert(message["data"], bytes, strict=False)))
    return found


async def test_rejected_item_is_kept_with_key_reason_and_content(nats: NatsServer) -> None:
    """The stream is created for the first item, and a repeat after a restart is not stored twice."""
    async with RejectsStream(LogSettings(url=nats.url), "postgres-notify") as rejects:
        await rejects(rejected("public.rounds:crash:1", b'{"round_id":"1"}\xff'))
        await rejects(rejected("public.rounds:crash:1", b'{"round_id":"1"}\xff'))
        await rejects(rejected("line\nbreak"))

    first, second = await kept(nats, "rejects.postgres-notify")
    assert first["key"] == "public.rounds:crash:1"
    assert first["reason"] == "finished_at is NULL; it must be a moment"
    assert first["raw"] == '{"round_id":"1"}\ufffd'
    assert second["key"] == "line\nbreak"


async def test_different_rows_with_the_same_key_are_all_kept(nats: NatsServer) -> None:
    """Rows without an id have the same key; each is a different round."""
    rows = [f'{{"round_id":null,"extras":"{number}"}}'.encode() for number in range(5)]
    async with RejectsStream(LogSettings(url=nats.url), "postgres-replication") as rejects:
        for row in [*rows, *rows]:
            await rejects(rejected(f"public.rounds:crash:None{' ' * 300}", row))

    found = await kept(nats, "rejects.postgres-replication")
    assert [item["raw"] for item in found] == [row.decode() for row in rows]


async def test_backend_of_any_name_has_one_subject_and_no_other(nats: NatsServer) -> None:
    """A backend's name cannot select a subject outside of REJECTS."""
    async with RejectsStream(LogSettings(url=nats.url), "a.b >*") as rejects:
        await rejects(rejected("x"))
        assert rejects.subject == "rejects.a_b___"
    assert len(await kept(nats, "rejects.a_b___")) == 1


async def test_item_rejected_while_nats_is_away_waits_for_it(nats: NatsServer) -> None:
    """Its offset is confirmed to the source only after it is stored, as for a round."""
    async with RejectsStream(LogSettings(url=nats.url, connect_timeout_s=0.2), "file") as rejects:
        await nats.kill()
        task = asyncio.create_task(rejects(rejected("x")))
        await nats.start()
        async with asyncio.timeout(20):
            await task
    assert len(await kept(nats, "rejects.file")) == 1


async def test_stream_that_refuses_the_item_does_not_stop_the_flow(nats: NatsServer) -> None:
    """Where a stream of the operator has the subject and refuses the message, it is only logged."""
    async with nats_client(LogSettings(url=nats.url)) as nc:
        config = msgspec.json.encode({"name": "OTHER", "subjects": ["rejects.>"], "max_msg_size": 16})
        await nc.request("$JS.API.STREAM.CREATE.OTHER", config, 5)
    async with RejectsStream(LogSettings(url=nats.url), "file") as rejects, asyncio.timeout(20):
        await rejects(rejected("x"))
