"""A link that is ended early or late in its session: it gets no rounds after its disconnect, and no wrong cursor."""

import asyncio
from typing import Any, Final, cast

import pytest

from auth.grants import Grant
from relay.admission.caller import Caller
from relay.admission.gate import Permit
from relay.admission.limits.limits import ClientLimits
from relay.config.sections import LimitSettings
from relay.history.history import History
from relay.history.start import Start
from relay.links.session import Session
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect
from relay.live.ring import Ring
from relay.turns import Turns
from roundlog.entry import LogEntry
from rounds import Catalogue, Cursor, Filter
from tests.relay.conftest import make_round
from tests.relay.live.recording_link import RecordingLink
from tests.resume.memory_log import MemoryLog

HEAD = 9
CRASH = Subscription(frozenset({"crash"}), Filter())


@pytest.fixture
async def hub() -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000)
    hub.begin(Bounds("k1", 1, HEAD))
    return hub


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    for sequence in range(1, HEAD + 1):
        log.store(LogEntry(sequence, "crash", make_round("crash", sequence).to_json()), at_ms=0)
    return log


GRANT: Final = Grant("demo", "private", None, frozenset())


def session_of(link: RecordingLink, hub: Hub, log: MemoryLog) -> Session:
    return Session(
        History(hub, cast("Any", log), Turns(), concurrent=1),
        Catalogue.load(),
        Permit("websocket", GRANT, Caller("127.0.0.1", "test"), ClientLimits(LimitSettings()).open(GRANT, "127.0.0.1")),
        link,
    )


def link_of(hub: Hub) -> RecordingLink:
    return RecordingLink(ender=Ender(hub, ReconnectDelays(0), linger_s=60))


@pytest.mark.parametrize("start", [Start(), Start(after=Cursor("k1", 3))], ids=["live", "after"])
async def test_link_that_is_ended_before_it_starts(hub: Hub, log: MemoryLog, start: Start) -> None:
    """As by a drain that begins during its handshake: it repeats its request elsewhere, and nothing is skipped."""
    link = link_of(hub)
    session = session_of(link, hub, log)

    link.end(CloseReason.DRAINING)
    session.start(CRASH, start)

    assert link.disconnects == [Disconnect(CloseReason.DRAINING, None, 0)]
    assert len(hub) == 0
    assert session.close() == []


async def test_link_that_is_ended_during_its_replay_is_not_joined(hub: Hub, log: MemoryLog) -> None:
    """The replay may be waiting for the client: no live round follows the disconnect."""
    link, waits, drained = link_of(hub), asyncio.Event(), asyncio.Event()

    async def drain() -> None:
        if link.events:  # the replay knows where it begins
            waits.set()
            await drained.wait()

    link._drain = drain
    async with asyncio.timeout(20), session_of(link, hub, log) as session:
        session.start(CRASH, Start(after=Cursor("k1", 3)))
        await waits.wait()
        link.end(CloseReason.MAX_AGE)
        drained.set()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("replay-")))
        assert len(hub) == 0

    [disconnect] = link.disconnects
    assert disconnect.reason is CloseReason.MAX_AGE


@pytest.mark.parametrize("closes", [False, True])
async def test_replay_whose_task_is_cancelled(hub: Hub, log: MemoryLog, *, closes: bool) -> None:
    """By the end of its link, or by others: then the link is ended, since it would get nothing more."""
    link = link_of(hub)
    session = session_of(link, hub, log)
    session.start(CRASH, Start(after=Cursor("k1", 3)))
    [task] = [task for task in asyncio.all_tasks() if task.get_name().startswith("replay-")]

    (session.close if closes else task.cancel)()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)

    assert [each.reason for each in link.disconnects] == ([] if closes else [CloseReason.FAILED])
    session.close()


async def test_link_with_corrections_follows_its_games_and_nothing_else(hub: Hub, log: MemoryLog) -> None:
    """Its key is judged by games, whatever comes of them; live and in a replay."""
    for start in (Start(), Start(after=Cursor("k1", 0))):
        link = link_of(hub)
        async with session_of(link, hub, log) as session:
            session.start(CRASH.with_corrections(), start)
            assert session.games == {"crash"}
