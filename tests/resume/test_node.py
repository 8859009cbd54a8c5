"""The `eventsource` package of Node, which resumes and stops by itself, as browsers do."""

import asyncio
import json
from typing import Any

import pytest

from auth.key_secret import DEMO_KEY
from tests.clients.program import Program
from tests.clients.test_node_clients import node
from tests.network.ports import HeldPort
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import LogWriter, make_round

pytestmark = pytest.mark.service


async def happened(client: Program, event: str, *, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the script has printed an event `count` times; return the facts printed with it."""
    found = await asyncio.to_thread(client.wait_for, f'^{{"event":"{event}".*$', count=count)
    return [json.loads(match[0]) for match in found]


def round_ids(messages: list[dict[str, Any]]) -> list[int]:
    return [json.loads(message["data"])["round_id"] for message in messages]


async def test_eventsource_resumes_by_itself_through_a_restart(log: LogWriter, start_relay: StartRelay) -> None:
    """Rounds stored while the relay was down are sent when it is up; none is sent twice."""
    held = HeldPort()
    port = held.number
    await log.store(*(make_round("crash", number) for number in range(5)))

    async with start_relay(port=port) as url:
        source = await asyncio.to_thread(node, "eventsource.js", f"{url}/sse/crash?last=3&api_key={DEMO_KEY}")
        messages = await happened(source, "message", count=3)
        await log.store(make_round("crash", 5))
        messages += await happened(source, "message")
    try:
        await log.store(make_round("crash", 6), make_round("crash", 7))
        async with start_relay(port=port):
            messages += await happened(source, "message", count=2)
            await log.store(make_round("crash", 8))
            messages += await happened(source, "message")
    finally:
        await asyncio.to_thread(source.stop)

    assert round_ids(messages) == [2, 3, 4, 5, 6, 7, 8]


async def test_eventsource_plays_a_bounded_replay_once(relay: str, log: LogWriter) -> None:
    """After the end it reconnects, as it always does, and gets an answer after which it stops."""
    await log.store(*(make_round("crash", number) for number in range(30)))

    url = f"{relay}/sse/crash?to=2026-01-18T10:00:20Z&api_key={DEMO_KEY}"
    source = await asyncio.to_thread(node, "eventsource.js", url)
    try:
        messages = await happened(source, "message", count=21)
        [comes_back] = await happened(source, "comes_back")
        [gave_up] = await happened(source, "gave_up")
    finally:
        await asyncio.to_thread(source.stop)

    assert round_ids(messages) == list(range(21))
    assert "code" not in comes_back
    assert gave_up["code"] == 204
    assert not any(
        '"event":"message"' in line
        for line in source.printed[source.printed.index(json.dumps(gave_up, separators=(",", ":"))) :]
    )
