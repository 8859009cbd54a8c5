"""The stream is edited while relays work, and before they start: nothing ends, and what matters is named."""

from functools import partial
from typing import Any

import aiohttp
import pytest

from relay.live.following import feed
from tests.backends.harness import captured_events
from tests.edits import BREAKING, HARMLESS, SILENT, edit
from tests.nats import NatsServer
from tests.relay.conftest import Publish, StartRelay, wait_ready
from tests.relay.live.test_feed import link, numbers
from tests.waiting import until

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the settings at every turn, and compare the log's tail often."""
    monkeypatch.setattr(feed, "_LOOK_S", 0.1)
    monkeypatch.setattr(feed, "_POLL_S", 0.1)
    monkeypatch.setattr(feed, "_PAUSE_S", (0.05, 0.1))


async def not_ready(client: aiohttp.ClientSession, url: str, naming: str) -> dict[str, Any]:
    """Wait until the relay is not ready because of a setting; return its answer."""

    async def answer() -> dict[str, Any] | None:
        async with client.get(f"{url}/readyz") as response:
            body: dict[str, Any] = await response.json()
        return body if naming in body.get("detail", "") else None

    return await until(answer)


async def test_edits_neither_end_a_relay_nor_its_links(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer
) -> None:
    """Of those that break a promise, the probe names each; the others are one warning each."""
    number = 0
    with captured_events() as events:
        async with start_relay() as url, link(client, url) as ws:
            for name, changes in BREAKING.items():
                back = await edit(nats, changes)
                body = await not_ready(client, url, f"{name.partition(' ')[0]} is ")
                assert body["reason"] == "log_mismatch"
                assert "wanted " in body["detail"]
                async with client.get(f"{url}/metrics") as response:
                    expected = f'relay_stream_mismatch{{setting="{name.partition(" ")[0]}",stream="ROUNDS"}} 1.0'
                    assert expected in await response.text()
                await edit(nats, back)
                await wait_ready(url)
                number += 1
                await publish("crash", number)
                assert await numbers(ws, 1) == [number]
            for name, changes in {**HARMLESS, **SILENT}.items():
                back = await edit(nats, changes)
                if name in HARMLESS:
                    await until(partial(warned, events, name))
                await wait_ready(url)
                await edit(nats, back)

    assert events.count("stream_restored") == len(BREAKING)


def warned(events: Any, name: str) -> bool:
    return any(event["event"] == "stream_differs" and f"{name} is " in event["settings"] for event in events.details)


async def test_rounds_are_delivered_while_they_are_not_republished(
    start_relay: StartRelay,
    client: aiohttp.ClientSession,
    publish: Publish,
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay finds them in the log, and looks at the settings because of that, long before it would."""
    monkeypatch.setattr(feed, "_LOOK_S", 3600)
    async with start_relay() as url, link(client, url) as ws:
        await publish("crash", 1)
        assert await numbers(ws, 1) == [1]
        back = await edit(nats, {"republish": None})
        await publish("crash", 2, 3)
        assert await numbers(ws, 2) == [2, 3]
        await not_ready(client, url, "republish is None")
        await edit(nats, back)
        await wait_ready(url)


@pytest.mark.parametrize("name", ["republish", "allow_direct"])
async def test_relay_that_starts_onto_an_edited_stream_waits_until_it_is_edited_back(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer, name: str
) -> None:
    """It starts, says what it waits for, and works once it has it."""
    await publish("crash", 1)
    back = await edit(nats, BREAKING[name])
    async with start_relay(ready=False) as url:
        await not_ready(client, url, f"{name} is ")
        await edit(nats, back)
        await wait_ready(url)
        async with link(client, url) as ws:
            await publish("crash", 2)
            assert await numbers(ws, 1) == [2]


async def test_relay_starts_onto_a_stream_with_other_limits(
    start_relay: StartRelay, publish: Publish, nats: NatsServer
) -> None:
    """Scaling out works while the settings of the relays are not changed yet; each names what differs."""
    await publish("crash", 1)
    for name in ("max_age_s", "max_bytes", "max_msgs", "duplicate_window_s"):
        await edit(nats, HARMLESS[name])
    with captured_events() as events:
        async with start_relay():
            pass
    assert all(warned(events, name) for name in ("max_age_s", "max_bytes", "max_msgs", "duplicate_window_s"))
