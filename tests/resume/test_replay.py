"""A replay by itself: anything may happen between two of its awaits, and its client may read in any way."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.history.reading.budget import Budget
from relay.history.reading.pages import PAGE, LogChanged
from relay.history.start import Start
from relay.live.encode import Renderable, SseBlock
from rounds import Cursor
from rounds.subjects import corrections_of, with_corrections
from tests.resume.log_writer import TEN_O_CLOCK_MS
from tests.resume.replay_rig import HIGH_WATER, Client, Rig, turns
from tests.waiting import until

GAMES = ("crash", "dice", "plinko")
NAMES = (*GAMES, corrections_of("crash"))

happenings = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from(NAMES)),
        st.tuples(st.just("live"), st.sampled_from(NAMES)),
        st.tuples(st.just("other"), st.integers(1, 5)),
        st.tuples(st.just("turns"), st.integers(1, 12)),
        st.tuples(st.just("purge"), st.floats(0, 1)),
        st.tuples(st.just("lose_tail"), st.floats(0, 1)),
        st.tuples(st.just("rebuild"), st.none()),
        st.tuples(st.just("clog"), st.booleans()),
    ),
    max_size=60,
)


class Truth:
    """What was stored in which log, and what of it was lost or purged; judges what came."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, int, int, str]] = []  # epoch, sequence, number, game
        self.lost: set[int] = set()
        self.purged: set[int] = set()

    def judge(self, came: Sequence[dict[str, Any]], games: Sequence[str], epoch: str) -> None:
        """Each once, in order, none missing without a gap."""
        at, gone = Cursor("k1", 0), set[int]()
        for message in came:
            if "id" in message:
                assert message["epoch"] == at.epoch, came
                assert message["sequence"] > at.sequence, f"not in order: {message} after {at}"
                at = Cursor(at.epoch, message["sequence"])
            elif message["event"] == "gap":
                assert message["reason"] != "deleted", "nothing is deleted here"
                begin, end = Cursor.parse(message["from"]), Cursor.parse(message["to"])
                if message["reason"] == "ahead":
                    at = begin
                    continue
                assert not any(self._between(at, begin, games) if begin.epoch == at.epoch else ()), message
                gone |= self._between(begin if message["reason"] == "expired" else Cursor(end.epoch, 0), end, games)
                at = end
        numbers = [message["id"] for message in came if "id" in message]
        assert len(numbers) == len(set(numbers)), f"twice: {numbers}"
        assert gone <= self.purged | self.lost
        last_of = {message["epoch"]: message["id"] for message in came if "id" in message}
        for stored_epoch, _, number, game in self.stored:
            if game not in games or number in self.lost | gone or number in numbers:
                continue
            # Of a log that is gone, the end may be missing, but nothing before what came.
            assert stored_epoch != epoch, f"{number} is missing: {came}"
            assert number > last_of.get(stored_epoch, 0) or number in self.purged, f"{number} is missing: {came}"

    def numbers(self, epoch: str, begin: int, end: int) -> set[int]:
        """What was stored after one sequence up to another."""
        return {number for epoch_, sequence, number, _ in self.stored if epoch_ == epoch and begin < sequence <= end}

    def _between(self, begin: Cursor, end: Cursor, games: Sequence[str]) -> set[int]:
        of_games = {number for *_, number, game in self.stored if game in games}
        return (self.numbers(begin.epoch, begin.sequence, end.sequence) & of_games) - self.lost


class Story:
    """A replay of the whole log, and what happens to it; each kind of event is a method."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.truth, self.client = rig, Truth(), Client()

    async def store(self, game: str) -> None:
        number = self.rig.store(game, at_ms=TEN_O_CLOCK_MS)
        self.truth.stored.append((self.rig.epoch, self.rig.head, number, game))

    async def live(self, game: str) -> None:
        await self.store(game)
        self.rig.hear()

    async def other(self, count: int) -> None:
        for _ in range(count):
            self.rig.store_other()

    async def turns(self, count: int) -> None:
        await turns(count)

    async def purge(self, share: float) -> None:
        sequence = round(share * self.rig.hub.head.sequence)
        self.truth.purged |= self.truth.numbers(self.rig.epoch, 0, sequence)
        self.rig.log.purge(sequence)

    async def lose_tail(self, share: float) -> None:
        oldest = self.rig.log.entries[0].sequence if self.rig.log.entries else self.rig.head
        end = oldest + round(share * (self.rig.head - oldest))
        self.truth.lost |= self.truth.numbers(self.rig.epoch, end, self.rig.head)
        self.rig.lose_tail(end)

    async def rebuild(self, _: None) -> None:
        self.rig.rebuild()

    async def clog(self, is_clogged: bool) -> None:
        self.client.taking = not is_clogged
        if is_clogged:
            self.client.unsent = HIGH_WATER + 1
        else:
            self.client.take()


@settings(max_examples=100)
@given(
    before=st.lists(st.sampled_from(NAMES), max_size=25),
    games=st.sets(st.sampled_from(GAMES), min_size=1).map(sorted)
    | st.sets(st.sampled_from(GAMES), min_size=1).map(with_corrections).map(sorted),
    happenings=happenings,
    delays=st.lists(st.integers(0, 6), max_size=40),
    page=st.integers(1, 6),
    slice_=st.integers(1, 3),
    ring_rounds=st.integers(1, 4),
    speed=st.sampled_from([None, None, 10_000.0]),
    cell=st.sampled_from([2, 3, 50]),
)
def test_whatever_happens_between_two_steps(
    before: list[str],
    games: list[str],
    happenings: list[tuple[str, Any]],
    delays: list[int],
    page: int,
    slice_: int,
    ring_rounds: int,
    speed: float | None,
    cell: int,
) -> None:
    """Live rounds, ends of pages and slices, purges, a lost tail, a new log: each round once, in order, or a gap.

    Messages that are no rounds may be anywhere, and are no gap.

    The same with corrections, of which a replay of one game reads pages of their own.
    """

    async def tell() -> None:
        story = Story(Rig(ring_rounds=ring_rounds, delays=delays))
        story.rig.log.most_at_once = page
        for game in before:
            await story.live(game)
        await turns(1)
        replay = story.rig.replay(story.client, Start(after=Cursor("k1", 0), speed=speed), games=tuple(games))
        # As a session does it: at once if memory is enough, and in a task if not.
        running = None if replay.begin() else asyncio.create_task(replay.run())
        for what, value in happenings:
            await getattr(story, what)(value)
        await story.clog(False)
        story.rig.hear()
        if running is not None:
            async with asyncio.timeout(10):
                await running
        for game in GAMES:
            await story.live(game)
        await turns(2)
        story.truth.judge(story.client.came, games, story.rig.epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relay.history.writer._SLICE", slice_)
        patch.setattr("relay.history.writer.FEW", 2)
        patch.setattr("relay.history.reading.pages.FEW", 2)
        patch.setattr("relay.history.reading.stretch.CELL", cell)
        patch.setattr("relay.history.shared_tails.CELL", cell)
        patch.setattr("relay.history.reading.stretch._SHORT", 1)
        asyncio.run(tell())


async def test_page_of_a_log_that_was_rebuilt_meanwhile_is_discarded() -> None:
    """Otherwise its rounds would get cursors of the new log, or be sent twice."""
    rig = Rig(delays=[3])
    for _ in range(10):
        rig.store()
    reading = asyncio.create_task(rig.history.pages.read(0, frozenset({"crash"}), generation=rig.hub.generation))
    await turns(1)
    rig.rebuild()

    with pytest.raises(LogChanged):
        await reading


async def stalled(rig: Rig, start: Start) -> tuple[Client, "asyncio.Task[None]"]:
    """Run a replay for a client that takes nothing; return when it waits for the client only."""
    client = Client(taking=False)
    running = asyncio.create_task(rig.replay(client, start).run())
    held = rig.history.pages.held
    await until(lambda: client.times_given_up and client.is_awaited and held._free == held._rounds)
    return client, running


@pytest.mark.parametrize("speed", [None, 10_000.0])
async def test_client_that_takes_nothing_costs_no_memory(speed: float | None) -> None:
    """At any speed, a replay writes until the client's buffers are full, and then holds nothing."""
    rig = Rig()
    for _ in range(5000):
        rig.store(at_ms=TEN_O_CLOCK_MS)
    rig.hear()
    await turns(50)

    client, running = await stalled(rig, Start(after=Cursor("k1", 0), speed=speed))
    assert client.most_unsent < 2 * HIGH_WATER
    had = len(client.rounds)
    client.taking = True
    client.take()
    async with asyncio.timeout(10):
        await running

    assert 0 < had < 2000
    assert [round_["sequence"] for round_ in client.rounds] == list(range(1, 5001))


async def test_round_that_fails_costs_a_replay_itself_only() -> None:
    """Otherwise a client would be ended at the same round each time that it reconnects."""
    rig = Rig(ring_rounds=1)
    for _ in range(5):
        rig.store()
    rig.hear()
    await turns(5)
    client, whole = Client(), SseBlock.render

    def poisoned(self: SseBlock, item: Renderable) -> bytes:
        if item.cursor == "k1-3":
            raise RecursionError("poison")
        return whole(self, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SseBlock, "render", poisoned)
        await rig.replay(client, Start(after=Cursor("k1", 0))).run()

    assert [round_["sequence"] for round_ in client.rounds] == [1, 2, 4, 5]


async def test_paced_replay_takes_turns() -> None:
    """Rounds that are due are written in slices; between slices the loop turns for live rounds and other replays."""
    rig = Rig()
    for _ in range(2000):
        rig.store(at_ms=TEN_O_CLOCK_MS)
    rig.hear()
    await turns(50)
    client = Client()
    running = asyncio.create_task(rig.replay(client, Start(after=Cursor("k1", 0), speed=10_000.0)).run())

    most, had = 0, 0
    while not running.done():
        await turns(1)
        most, had = max(most, len(client.rounds) - had), len(client.rounds)

    assert had == 2000
    assert most <= 125


async def test_stalled_replays_do_not_block_others() -> None:
    """More replays than may hold pages at a time wait for their clients; a replay that is read makes progress."""
    rig = Rig()
    for _ in range(5000):
        rig.store(at_ms=TEN_O_CLOCK_MS)
    rig.hear()
    await turns(50)
    slow = [Client(taking=False) for _ in range(80)]
    waiting = [asyncio.create_task(rig.replay(client, Start(after=Cursor("k1", 0))).run()) for client in slow]
    await turns(10)

    quick = Client()
    async with asyncio.timeout(20):
        await rig.replay(quick, Start(after=Cursor("k1", 0))).run()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert len(quick.rounds) == 5000
    assert rig.history.pages.held._free == rig.history.pages.held._rounds


async def test_budget_is_shared_in_the_order_of_requests() -> None:
    """A small request does not overtake a large one; a cancelled request does not block those after it."""
    budget, order = Budget(100), list[str]()

    async def hold(name: str, rounds: int) -> None:
        share = await budget.take(rounds)
        order.append(name)
        await turns(2)
        budget.give(share)

    share = await budget.take(60)
    first = asyncio.create_task(hold("first", 80))
    await turns(1)
    second = asyncio.create_task(hold("second", 30))
    third = asyncio.create_task(hold("third", 500))  # more than the budget: it gets all of it
    await turns(2)
    assert order == []
    first.cancel()
    await turns(3)
    assert order == ["second"]
    assert budget.try_take(30) == 0  # others wait
    budget.give(share)
    await asyncio.gather(second, third)

    assert order == ["second", "third"]
    assert budget.try_take(100) == 100


async def test_slow_reading_costs_little_more_reading() -> None:
    """For a client that takes a little at a time some rounds are read twice, but not many times."""
    rig = Rig()
    for _ in range(1000):
        rig.store(at_ms=TEN_O_CLOCK_MS)
    rig.hear()
    await turns(50)
    client = Client(taking=False)
    running = asyncio.create_task(rig.replay(client, Start(after=Cursor("k1", 0))).run())
    read = 0
    page_of = rig.log.page

    async def counted(start: int, *, limit: int, game: str | None = None) -> Any:
        nonlocal read
        page = await page_of(start, limit=limit, game=game)
        read += len(page.entries)
        return page

    rig.log.page = counted  # type: ignore[method-assign]
    while not running.done():
        before = client.times_given_up
        await until(lambda: running.done() or (client.is_awaited and client.times_given_up > before))  # noqa: B023
        client.take()

    assert [round_["sequence"] for round_ in client.rounds] == list(range(1, 1001))
    assert read < 3 * 1000 + PAGE


@pytest.mark.parametrize("games", [("crash",), GAMES], ids=["one game", "several"])
@pytest.mark.parametrize("stored", [0, 3], ids=["empty", "with rounds"])
async def test_log_that_was_rebuilt_is_not_read_before_the_relay_has_noticed(
    monkeypatch: pytest.MonkeyPatch, games: tuple[str, ...], stored: int
) -> None:
    """Its pages say nothing about the sequences of the log before: the gap begins where the client is."""
    monkeypatch.setattr("relay.history.replay._PAUSE_S", (0.001, 0.001))
    rig, client = await Rig.filled(2000), Client(taking=False)
    replaying = asyncio.create_task(rig.replay(client, Start(after=Cursor("k1", 0)), games=games).run())
    await until(lambda: client.is_awaited)

    rig.rebuild(is_noticed=False)
    for _ in range(stored):
        rig.store()
    asked, client.taking = rig.log.requests, True
    client.take()
    await until(lambda: rig.log.requests > asked + 5)
    rig.notice_rebuilt()
    rig.store()
    rig.hear()
    await replaying

    [gap] = client.gaps
    *before, last = (round_ for round_ in client.rounds if round_["epoch"] == "k1")
    assert (gap["from"], gap["to"], gap["reason"]) == (f"k1-{last['sequence']}", "k2-0", "rebuilt")
    assert len(before) + 1 == last["sequence"] < 2000
    assert [round_["sequence"] for round_ in client.rounds if round_["epoch"] == "k2"] == list(range(1, stored + 2))
