"""When the feed stops: some time after its last listener has left, and without a timer for each listener."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from relay.live.following.feed import Feed
from relay.live.following.sequencer import Sequencer
from relay.live.hub import Hub
from relay.live.ring import Ring
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader


@pytest.fixture
async def feed() -> Feed:
    """A feed that has started, of a log that nobody asks."""
    settings = LogSettings()
    feed = Feed(settings, Hub(Ring(rounds_per_game=1, bytes_per_game=1), unsent_bytes=1), LogReader(settings))
    feed._sequencer = Sequencer(0, park_limit=1)
    return feed


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], None]]]:
    """Timers that were set: when each is due, and what it calls."""
    found = list[tuple[float, Callable[[], None]]]()

    def call_at(when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        found.append((when, callback))
        return cast("asyncio.TimerHandle", object())

    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", call_at)
    return found


async def test_many_short_requests_share_one_timer(feed: Feed, timers: list[tuple[float, Callable[[], None]]]) -> None:
    """A request pays no timer; when the timer is due, it is set again for the time that the last request needs."""
    for _ in range(100):
        async with feed.listening():
            pass
    assert len(timers) == 1
    due_at, run = timers[0]

    run()
    assert feed.is_following
    assert len(timers) == 2
    assert timers[1][0] > due_at


async def test_feed_stops_once_the_last_listener_is_gone_for_long_enough(
    feed: Feed, timers: list[tuple[float, Callable[[], None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while there is one; a timer is set again when that one leaves."""
    async with feed.listening():
        async with feed.listening():
            pass
        assert timers == []
    async with feed.listening():
        timers.pop()[1]()
        assert feed.is_following
        assert timers == []
    monkeypatch.setattr("relay.live.following.feed._LINGER_S", 0.0)
    timers.pop()[1]()
    assert not feed.is_following
