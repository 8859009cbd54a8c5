"""The wheel of heartbeats: who is shown signs of life, who is too old, who is given up. No time passes here."""

import asyncio

import pytest

from relay.live.bounds import Bounds
from relay.live.heartbeat import Heartbeats
from relay.live.hub import Hub, Wanted
from relay.live.link import CloseReason, Link
from relay.live.ring import Ring
from rounds import Filter
from tests.relay.live.test_hub import RecordingLink

RETRY_MS = 40
WANTED = Wanted(frozenset({"crash"}), Filter())


class BeatenLink(RecordingLink):
    """Counts its heartbeats; `alive` is what it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = 0
        self.beaten = asyncio.Event()
        self.alive = True

    def heartbeat(self) -> bool:
        self.beats += 1
        self.beaten.set()
        return self.alive


@pytest.fixture
async def hub() -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000, linger_s=60)
    hub.begin(Bounds("k1", 1, 7))
    return hub


@pytest.fixture
def wheel(hub: Hub) -> Heartbeats:
    return Heartbeats(hub, interval_s=0.064, retry_ms=RETRY_MS)


async def test_link_is_beaten_until_it_is_too_old(hub: Hub, wheel: Heartbeats) -> None:
    """Then it is sent away with its cursor and a delay of its own."""
    link = BeatenLink()
    hub.add(link, WANTED)

    wheel.beat({link}, link.expires_at - 0.001)
    assert (link.beats, link.goodbyes) == (1, [])
    wheel.beat({link}, link.expires_at)

    [goodbye] = link.goodbyes
    assert (link.beats, goodbye.reason, goodbye.cursor) == (1, CloseReason.MAX_AGE, "k1-7")
    assert 0 <= goodbye.retry_ms <= RETRY_MS
    assert len(hub) == 0


async def test_client_that_does_not_answer_is_given_up(hub: Hub, wheel: Heartbeats) -> None:
    """The link says so when it is beaten."""
    link = BeatenLink()
    link.alive = False

    wheel.beat({link}, link.opened_at)

    assert [goodbye.reason for goodbye in link.goodbyes] == [CloseReason.UNRESPONSIVE]


async def test_ended_link_is_left_alone(hub: Hub, wheel: Heartbeats) -> None:
    """Nothing may be written after a goodbye, however long the client lingers."""
    link = BeatenLink()
    hub.end(link, CloseReason.DRAINING, retry_ms=1)

    wheel.beat({link}, link.expires_at + 1)

    assert (link.beats, [goodbye.reason for goodbye in link.goodbyes]) == (0, [CloseReason.DRAINING])


async def test_links_that_come_together_come_due_one_after_another(
    hub: Hub, wheel: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spread over the wheel's slots, so that thousands of pings do not go out in one instant."""
    links = [BeatenLink() for _ in range(128)]
    for link in links:
        wheel.add(link)
    sizes: list[int] = []
    turned = asyncio.Event()

    def beat(slot: set[Link], now: float) -> None:
        sizes.append(len(slot))
        if len(sizes) == 64:
            turned.set()

    monkeypatch.setattr(wheel, "beat", beat)
    await turn_until(wheel, turned)

    assert sizes[:64] == [2] * 64


async def test_link_that_left_is_not_beaten(hub: Hub, wheel: Heartbeats) -> None:
    """And leaving twice does no harm."""
    gone, here = BeatenLink(), BeatenLink()
    for link in (gone, here):
        wheel.add(link)
    wheel.remove(gone)
    wheel.remove(gone)

    await turn_until(wheel, here.beaten)

    assert gone.beats == 0


async def turn_until(wheel: Heartbeats, event: asyncio.Event) -> None:
    """Turn the wheel, a thousand times as fast as in production, until `event`."""
    turning = asyncio.create_task(wheel.run())
    async with asyncio.timeout(20):
        await event.wait()
    turning.cancel()
