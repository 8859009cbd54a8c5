"""The wheel of heartbeats: which links get a heartbeat, are too old, or do not answer. No time passes here."""

import asyncio

import pytest

from relay.live.ending import Ender, ReconnectDelays
from relay.live.heartbeat import Heartbeats
from relay.live.hub import Hub
from relay.live.link import CloseReason, Link
from relay.live.ring import Ring
from tests.relay.live.recording_link import RecordingLink


class BeatenLink(RecordingLink):
    """Counts its heartbeats; `alive` is what it answers."""

    def __init__(self) -> None:
        hub = Hub(Ring(rounds_per_game=1, bytes_per_game=1000), unsent_bytes=1000)
        super().__init__(ender=Ender(hub, ReconnectDelays(0), linger_s=60))
        self.beats = 0
        self.beaten = asyncio.Event()
        self.alive = True

    def heartbeat(self) -> bool:
        self.beats += 1
        self.beaten.set()
        return self.alive


@pytest.fixture
def wheel() -> Heartbeats:
    return Heartbeats(interval_s=0.064)


async def test_link_gets_heartbeats_until_it_is_too_old(wheel: Heartbeats) -> None:
    """Then it is ended."""
    link = BeatenLink()

    wheel.beat({link}, link.expires_at - 0.001)
    assert (link.beats, link.disconnects) == (1, [])
    wheel.beat({link}, link.expires_at)

    assert (link.beats, [end.reason for end in link.disconnects]) == (1, [CloseReason.MAX_AGE])


async def test_link_of_a_client_that_does_not_answer_is_ended(wheel: Heartbeats) -> None:
    """Its heartbeat returns False."""
    link = BeatenLink()
    link.alive = False

    wheel.beat({link}, link.opened_at)

    assert [end.reason for end in link.disconnects] == [CloseReason.UNRESPONSIVE]


async def test_ended_link_gets_no_heartbeat(wheel: Heartbeats) -> None:
    """Nothing may be written after a disconnect, however long the client lingers."""
    link = BeatenLink()
    link.end(CloseReason.DRAINING)

    wheel.beat({link}, link.expires_at + 1)

    assert (link.beats, [end.reason for end in link.disconnects]) == (0, [CloseReason.DRAINING])


async def test_links_that_open_together_are_due_one_after_another(
    wheel: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are spread over the wheel's slots, so that thousands of pings are not sent in one instant."""
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


async def test_link_that_left_gets_no_heartbeat(wheel: Heartbeats) -> None:
    """Removing it twice does no harm."""
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
