"""Ends of links: each client gets a reason, its cursor and a delay of its own, once, whatever the protocol."""

import asyncio
from typing import Final

import pytest

from relay.errors import Unavailable
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect
from relay.live.ring import Ring
from rounds import Cursor, Filter
from tests.relay.live.recording_link import RecordingLink

RETRY_MS: Final = 2
DRAWS: Final = 400
CRASH: Final = Subscription(frozenset({"crash"}), Filter())
DRAWN_MS: Final = 4711
BY_CLIENT: Final = {CloseReason.CLIENT, CloseReason.BAD_MESSAGE, CloseReason.DEADLINE, CloseReason.COMPLETED}


@pytest.fixture
async def hub() -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000)
    hub.begin(Bounds("k1", 1, 9))
    return hub


@pytest.fixture
def ender(hub: Hub) -> Ender:
    return Ender(hub, ReconnectDelays(RETRY_MS), linger_s=60)


@pytest.fixture
def prompt(hub: Hub) -> Ender:
    """Its clients return at once."""
    return Ender(hub, ReconnectDelays(0), linger_s=60)


def subscribed(hub: Hub, ender: Ender) -> RecordingLink:
    """A link that has got everything up to k1-7."""
    link = RecordingLink(ender=ender)
    link.cursor = lambda: Cursor("k1", 7)
    hub.add(link, CRASH)
    return link


@pytest.mark.parametrize("reason", CloseReason)
async def test_every_end_has_a_reason_a_cursor_and_a_delay(
    hub: Hub, ender: Ender, reason: CloseReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link gets no more rounds, and the end is counted."""
    link = subscribed(hub, ender)
    monkeypatch.setattr(ender.delays, "after_end", {reason: DRAWN_MS}.__getitem__)

    link.end(reason)

    assert link.disconnects == [Disconnect(reason, "k1-7", DRAWN_MS)]
    assert link.ended == link.disconnects[0]
    assert len(hub) == 0
    assert dict(ender.ended) == {reason: 1}


@pytest.mark.parametrize("reason", sorted(set(CloseReason) - {CloseReason.CAPACITY, CloseReason.RATE_LIMITED}))
def test_delay_of_an_end_is_drawn_by_its_reason(reason: CloseReason) -> None:
    """Each end that is the relay's doing may be one of thousands: their clients return over a while."""
    delays = ReconnectDelays(RETRY_MS)

    drawn = {delays.after_end(reason) for _ in range(DRAWS)}

    assert drawn == ({0} if reason in BY_CLIENT else {0, 1, 2})


def test_delay_of_a_refused_client_is_longer() -> None:
    """From the configured delay to three times as long: a full relay does not get better at once."""
    delays = ReconnectDelays(RETRY_MS)

    assert {delays.after_refusal() for _ in range(DRAWS)} == {2, 3, 4, 5, 6}


def test_delays_can_be_turned_off() -> None:
    """`retry_ms` may be 0."""
    delays = ReconnectDelays(0)

    assert {delays.after_refusal(), delays.after_end(CloseReason.DRAINING)} == {0}


async def test_link_is_ended_once(hub: Hub, prompt: Ender) -> None:
    """The first reason stands: a drain of a link that was ended as slow changes nothing."""
    link = subscribed(hub, prompt)

    link.end(CloseReason.SLOW)
    link.end(CloseReason.DRAINING)

    assert link.disconnects == [Disconnect(CloseReason.SLOW, "k1-7", 0)]
    assert dict(prompt.ended) == {CloseReason.SLOW: 1}


async def test_cut_link_gets_no_disconnect(hub: Hub, prompt: Ender) -> None:
    """It may lack rounds before its cursor: the end is counted, without a cursor, and the connection is cut at once."""
    link = subscribed(hub, prompt)

    link.cut(CloseReason.FAILED)

    assert link.disconnects == []
    assert link.ended == Disconnect(CloseReason.FAILED, None, 0)
    assert link.recorder.aborted.is_set()
    assert len(hub) == 0
    assert dict(prompt.ended) == {CloseReason.FAILED: 1}


async def test_cut_of_an_ended_link_keeps_its_reason(hub: Hub, prompt: Ender) -> None:
    """The end is counted once, and the connection is cut without waiting for the client."""
    link = subscribed(hub, prompt)

    link.end(CloseReason.SLOW)
    link.cut(CloseReason.FAILED)

    assert link.ended == Disconnect(CloseReason.SLOW, "k1-7", 0)
    assert link.recorder.aborted.is_set()
    assert dict(prompt.ended) == {CloseReason.SLOW: 1}


async def test_link_without_a_subscription_is_ended_without_a_cursor(prompt: Ender) -> None:
    """The client repeats its request: the cursor of the log's head would skip what it asked for."""
    link = RecordingLink(ender=prompt)

    link.end(CloseReason.SLOW)

    assert link.disconnects == [Disconnect(CloseReason.SLOW, None, 0)]


async def test_refused_client_gets_the_reason_and_delay_of_its_refusal(ender: Ender) -> None:
    """Its link was never open, so it is no end to count."""
    link = RecordingLink(ender=ender)

    ender.refuse(link, Unavailable("capacity", DRAWN_MS))

    assert link.disconnects == [Disconnect(CloseReason.CAPACITY, None, DRAWN_MS)]
    assert not ender.ended


async def test_client_that_does_not_read_its_disconnect_is_cut(hub: Hub) -> None:
    """After the time to linger, and not before: a dead client would hold its buffers for ever."""
    link = subscribed(hub, Ender(hub, ReconnectDelays(RETRY_MS), linger_s=0.01))

    link.end(CloseReason.DRAINING)

    assert not link.recorder.aborted.is_set()
    async with asyncio.timeout(20):
        await link.recorder.aborted.wait()
