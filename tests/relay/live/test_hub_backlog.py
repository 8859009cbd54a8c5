"""A backlog, after a stall or an outage, is written as fast as most links take it. Only transports are simulated."""

import pytest

from relay.live.bounds import Bounds
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason
from relay.live.ring import Ring
from tests.relay.live.recording_link import RecordingLink
from tests.relay.live.test_hub import entry, subscription, turn
from tests.waiting import until

SOME = 4


def hub_with(links: list[RecordingLink], *, unsent_bytes: int, backlog: bool = True) -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=unsent_bytes)
    hub.begin(Bounds("k1", 1, 0))
    if backlog:
        hub.expect_backlog(60)
    for link in links:
        hub.add(link, subscription("crash"))
    return hub


@pytest.fixture
async def links() -> list[RecordingLink]:
    return [RecordingLink() for _ in range(2 * SOME)]


async def test_next_write_waits_while_many_links_are_half_full(links: list[RecordingLink]) -> None:
    """Otherwise all of them would be ended as slow: a stall of a minute used to do that."""
    hub = hub_with(links, unsent_bytes=1000)
    for link in links[:SOME]:
        link.recorder.unsent = 501
    hub.publish([entry(1)])
    await turn()
    hub.publish([entry(2)])
    await turn(10)
    assert {len(link.recorder.writes) for link in links} == {1}

    for link in links[:SOME]:
        link.recorder.unsent = 0
    await until(lambda: {len(link.recorder.writes) for link in links} == {2})


async def test_links_that_take_nothing_are_waited_for_a_moment(links: list[RecordingLink]) -> None:
    """As long as a client of the least pace needs for the last write; then they get more, and are slow one day."""
    hub = hub_with(links, unsent_bytes=20_000)
    for link in links:
        link.recorder.unsent = 15_000
    hub.publish([entry(1)])
    await turn()
    hub.publish([entry(2)])
    await turn(2)
    assert {len(link.recorder.writes) for link in links} == {1}

    await until(lambda: {len(link.recorder.writes) for link in links} == {2}, within_s=20)


async def test_few_full_links_delay_nobody(links: list[RecordingLink]) -> None:
    """Nobody waits for one client that does not read."""
    hub = hub_with(links, unsent_bytes=1000)
    links[0].recorder.unsent = 900
    for number in range(1, 4):
        hub.publish([entry(number)])
        await turn()

    assert {len(link.recorder.writes) for link in links} == {3}


async def test_live_rounds_wait_for_nobody(links: list[RecordingLink]) -> None:
    """Clients that do not read, however many, delay the others in no case but a backlog."""
    hub = hub_with(links, unsent_bytes=1000, backlog=False)
    for link in links[1:]:
        link.recorder.unsent = 900
    for number in range(1, 4):
        hub.publish([entry(number)])
        await turn()

    assert len(links[0].recorder.writes) == 3


async def test_links_that_were_ended_are_not_waited_for(links: list[RecordingLink]) -> None:
    """Slow ones, and those whose clients have left."""
    hub = hub_with([], unsent_bytes=1000)
    ender = Ender(hub, ReconnectDelays(0), linger_s=60)
    slow = [RecordingLink(ender=ender) for _ in range(SOME)]
    for link in (*slow, *links):
        hub.add(link, subscription("crash"))
    for link in slow:
        link.recorder.unsent = 900
    hub.publish([entry(1)])
    await turn()
    for link in slow:
        link.recorder.unsent = 1001
        link.cut(CloseReason.SLOW)
    hub.publish([entry(2)])
    await turn()

    assert {len(link.recorder.writes) for link in links} == {2}


async def test_backlog_that_is_too_long_is_read_from_the_log_later(links: list[RecordingLink]) -> None:
    """The hub is behind until it has written enough; readers of the log wait for it."""
    hub = hub_with(links, unsent_bytes=1 << 20)
    hub.publish([entry(1)])  # written at once; what follows in this turn is a backlog
    hub.publish([entry(number) for number in range(2, 10_002)])
    behind = [hub.is_behind]
    hub.publish([entry(10_002)])
    behind.append(hub.is_behind)

    await hub.caught_up()

    assert [*behind, hub.is_behind] == [False, True, False]
