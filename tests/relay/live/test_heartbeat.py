"""The wheel of heartbeats: which links get a heartbeat, are too old, or do not answer. A clock of ours is read here."""

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Final

import pytest
import structlog

from relay.live.ending import Ender, ReconnectDelays
from relay.live.heartbeat import Heartbeats
from relay.live.hub import Hub
from relay.live.link import CloseReason, Link
from relay.live.ring import Ring
from tests.relay.live.recording_link import NeverEnded, RecordingLink

INTERVAL_S: Final = 16.0
AGE_S: Final = 1000.0
MANY: Final = 640


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.ran_s = 0.0
        """How long the process has run so far."""

    def __call__(self) -> float:
        return self.now


class BeatenLink(RecordingLink):
    """Notes when it gets its heartbeats; `alive` is what it answers."""

    def __init__(self, clock: Clock, *, age_s: float = AGE_S) -> None:
        hub = Hub(Ring(rounds_per_game=1, bytes_per_game=1000), unsent_bytes=1000)
        super().__init__(ender=Ender(hub, ReconnectDelays(0), linger_s=60))
        self.clock = clock
        self.expires_at = clock.now + age_s
        self.beats: list[float] = []
        self.alive = True

    def heartbeat(self) -> bool:
        self.beats.append(self.clock.now)
        return self.alive

    @property
    def reasons(self) -> list[CloseReason]:
        return [end.reason for end in self.disconnects]


class PingedLink(BeatenLink):
    """A link that is ended after two unanswered pings, as a WebSocket.

    The answer to a ping is read when the process has run for a second since the ping.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, age_s=1e6)
        self.unanswered = 1
        self.pinged_at_s = clock.ran_s

    def heartbeat(self) -> bool:
        super().heartbeat()
        if self.alive and self.clock.ran_s - self.pinged_at_s >= 1:
            self.unanswered = 0
        if self.unanswered >= 2:
            return False
        self.unanswered += 1
        self.pinged_at_s = self.clock.ran_s
        return True


class NotedEnd(NeverEnded):
    """Notes the end of a link."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.reason: CloseReason | None = None

    def end(self, link: Link, reason: CloseReason) -> None:
        self.reason = reason
        self.ended.set()


class BrokenLink(BeatenLink):
    """A link with a bug."""

    def heartbeat(self) -> bool:
        raise RuntimeError("unable to perform operation")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stalls() -> list[float]:
    """The stalls that were reported, in seconds."""
    return []


@pytest.fixture
def wheel(clock: Clock, stalls: list[float]) -> Heartbeats:
    return Heartbeats(interval_s=INTERVAL_S, clock=clock, on_stall=stalls.append)


def run(wheel: Heartbeats, clock: Clock, seconds: float, *, step_s: float = 0.05) -> None:
    """Let time pass while the process runs: the wheel is turned when it asks for it, at most a step late."""
    end = clock.now + seconds
    due_at = wheel.turn()
    while clock.now < end:
        clock.now = min(end, clock.now + step_s)
        clock.ran_s += step_s
        if clock.now >= due_at:
            due_at = wheel.turn()


async def test_link_gets_a_heartbeat_in_each_interval(wheel: Heartbeats, clock: Clock) -> None:
    """Not more often, and at most a moment later: a client or proxy may wait a second longer than the interval."""
    links = [BeatenLink(clock) for _ in range(MANY)]
    for link in links:
        wheel.add(link)
    began = clock.now

    run(wheel, clock, 5 * INTERVAL_S)

    for link in links:
        beats = [began, *link.beats]
        pauses = [later - before for before, later in pairwise(beats)]
        assert len(link.beats) in (4, 5)
        assert max(pauses) <= INTERVAL_S + 0.5
        assert min(pauses[1:]) >= INTERVAL_S - 0.2


async def test_links_that_open_together_are_due_one_after_another(wheel: Heartbeats, clock: Clock) -> None:
    """They are spread over the interval, so that thousands of pings are not sent in one instant."""
    links = [BeatenLink(clock) for _ in range(MANY)]
    for link in links:
        wheel.add(link)

    run(wheel, clock, 4 * INTERVAL_S)

    most = max(Counter(beat for link in links for beat in link.beats).values())
    assert most <= 2 * MANY / 64


async def test_few_links_get_no_heartbeat_at_once(wheel: Heartbeats, clock: Clock) -> None:
    """Their clients have heard of the relay a moment ago; the first of them used to get one after 0.2 s."""
    links = [BeatenLink(clock) for _ in range(5)]
    for link in links:
        wheel.add(link)

    run(wheel, clock, 0.9 * INTERVAL_S)

    assert [link.beats for link in links] == [[]] * 5


async def test_link_may_have_an_interval_of_its_own(wheel: Heartbeats, clock: Clock) -> None:
    """A client may ask for heartbeats more often."""
    often, usual = BeatenLink(clock), BeatenLink(clock)
    wheel.add(often, interval_s=5)
    wheel.add(usual)

    run(wheel, clock, 60)

    assert len(often.beats) in (11, 12)
    assert len(usual.beats) in (3, 4)


@pytest.mark.parametrize("age_s", [1.0, 3.3, 20.0, 40.1])
async def test_link_ends_within_a_second_of_its_age(wheel: Heartbeats, clock: Clock, age_s: float) -> None:
    """And not before. It used to end with a heartbeat, up to an interval later."""
    links = [BeatenLink(clock, age_s=age_s + number / 100) for number in range(100)]
    for link in links:
        wheel.add(link)
    ended: dict[BeatenLink, float] = {}
    while len(ended) < len(links):
        run(wheel, clock, 0.05)
        ended |= {link: clock.now for link in links if link.ended is not None and link not in ended}

    assert {tuple(link.reasons) for link in links} == {(CloseReason.MAX_AGE,)}
    late_s = [at - link.expires_at for link, at in ended.items()]
    assert min(late_s) >= 0
    assert max(late_s) <= 0.5


async def test_link_of_a_client_that_does_not_answer_is_ended(wheel: Heartbeats, clock: Clock) -> None:
    """Its heartbeat returns False."""
    link = BeatenLink(clock)
    link.alive = False
    wheel.add(link)

    run(wheel, clock, 3 * INTERVAL_S)

    assert (link.reasons, len(link.beats)) == ([CloseReason.UNRESPONSIVE], 1)


async def test_ended_link_gets_no_heartbeat(wheel: Heartbeats, clock: Clock) -> None:
    """Nothing may be written after a disconnect, however long the client lingers."""
    link = BeatenLink(clock, age_s=20)
    wheel.add(link)
    link.end(CloseReason.DRAINING)

    run(wheel, clock, 40)

    assert (link.beats, link.reasons) == ([], [CloseReason.DRAINING])


async def test_link_that_left_gets_no_heartbeat(wheel: Heartbeats, clock: Clock) -> None:
    """Removing it twice does no harm."""
    gone, here = BeatenLink(clock), BeatenLink(clock)
    for link in (gone, here):
        wheel.add(link)
    wheel.remove(gone)
    wheel.remove(gone)

    run(wheel, clock, INTERVAL_S)

    assert (gone.beats, len(here.beats)) == ([], 1)


async def test_bug_in_one_link_ends_that_link_only(wheel: Heartbeats, clock: Clock) -> None:
    """It is logged, and the others get their heartbeats: the wheel is one task, and the process ends with it."""
    broken, other = BrokenLink(clock), BeatenLink(clock)
    wheel.add(broken)
    wheel.add(other)

    with structlog.testing.capture_logs() as logs:
        run(wheel, clock, INTERVAL_S)

    assert broken.ended is not None
    assert broken.ended.reason is CloseReason.FAILED
    assert (broken.recorder.aborted.is_set(), len(other.beats)) == (True, 1)
    assert [(line["event"], line["link"]) for line in logs] == [("link_failed", broken.id)]


# --- after the process stood still -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stalled_s", [2.0, INTERVAL_S, 5.3 * INTERVAL_S, 100 * INTERVAL_S])
async def test_stall_costs_no_link(wheel: Heartbeats, clock: Clock, stalls: list[float], stalled_s: float) -> None:
    """One heartbeat each within the interval after it, and the usual time to answer: a relay cut all its clients."""
    links = [PingedLink(clock) for _ in range(MANY)]
    for link in links:
        wheel.add(link)
    run(wheel, clock, INTERVAL_S / 3)
    clock.now += stalled_s
    woke = clock.now

    with structlog.testing.capture_logs() as logs:
        run(wheel, clock, INTERVAL_S)

    assert {link.ended for link in links} == {None}
    for link in links:
        beats = [beat for beat in link.beats if beat >= woke]
        assert len(beats) == 1 or beats[1] - beats[0] >= INTERVAL_S - 0.5
    assert max(Counter(beat for link in links for beat in link.beats).values()) <= MANY / 8, "not all at once"
    assert [line["event"] for line in logs] == ["process_stalled"]
    assert logs[0]["stalled_s"] == pytest.approx(stalled_s, abs=0.5)
    assert stalls == pytest.approx([stalled_s], abs=0.5)


async def test_client_that_does_not_answer_is_found_after_a_stall(wheel: Heartbeats, clock: Clock) -> None:
    """In the usual time: a stall gives nobody more than one heartbeat."""
    links = [PingedLink(clock) for _ in range(10)]
    for link in links:
        link.alive = False
        wheel.add(link)
    clock.now += 10 * INTERVAL_S

    run(wheel, clock, 3 * INTERVAL_S + 1)

    assert {tuple(link.reasons) for link in links} == {(CloseReason.UNRESPONSIVE,)}


async def test_links_that_became_too_old_during_a_stall_end_one_after_another(wheel: Heartbeats, clock: Clock) -> None:
    """Within an interval: together they would return together."""
    links = [BeatenLink(clock, age_s=INTERVAL_S + number / 10) for number in range(MANY)]
    for link in links:
        wheel.add(link)
    run(wheel, clock, 1)
    clock.now += 10 * INTERVAL_S
    ends = []
    for _ in range(round(INTERVAL_S) + 1):
        before = sum(link.ended is not None for link in links)
        run(wheel, clock, 1)
        ends.append(sum(link.ended is not None for link in links) - before)

    assert sum(ends) == MANY
    assert max(ends) <= 4 * MANY / INTERVAL_S, ends
    assert {tuple(link.reasons) for link in links} == {(CloseReason.MAX_AGE,)}


async def test_short_delay_of_the_loop_is_made_up_for(wheel: Heartbeats, clock: Clock) -> None:
    """A busy loop that is late at each turn keeps the interval, which proxies measure."""
    link = BeatenLink(clock)
    wheel.add(link)

    run(wheel, clock, 10 * INTERVAL_S, step_s=0.8)

    pauses = [later - before for before, later in pairwise(link.beats)]
    assert max(pauses) <= INTERVAL_S + 1


async def test_many_links_that_are_due_together_are_served_in_several_turns(wheel: Heartbeats, clock: Clock) -> None:
    """Other work of the loop comes in between."""
    links = [BeatenLink(clock) for _ in range(2000)]
    for link in links:
        wheel.add(link)
        wheel._entries[link].beat_at = clock.now
        wheel._put(wheel._entries[link])
    clock.now += 0.9
    counts: list[int] = []
    while sum(counts) < len(links):
        before = sum(bool(link.beats) for link in links)
        wheel.turn()
        counts.append(sum(bool(link.beats) for link in links) - before)

    assert max(counts) <= 500


async def test_wheel_turns_by_itself() -> None:
    """With the clock of the event loop."""
    wheel, ender = Heartbeats(interval_s=0.064), NotedEnd()
    link = RecordingLink(ender=ender)
    link.expires_at = link.opened_at + 0.1
    wheel.add(link)

    turning = asyncio.create_task(wheel.run())
    async with asyncio.timeout(20):
        await ender.ended.wait()
    turning.cancel()

    assert ender.reason is CloseReason.MAX_AGE
    assert asyncio.get_running_loop().time() >= link.expires_at
