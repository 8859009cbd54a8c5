"""Any changes to log, relays and clients, in any order: each client gets what it was promised, and no more.

A real nats-server and two real relays with little memory, small pages and small slices; hypothesis decides what
happens. What may be seen is in `tests.resume.promises`.
"""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from roundlog.entry import Page
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from rounds import Cursor
from rounds.times import utc_text
from tests.nats import NatsServer
from tests.resume.conftest import running
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.promises import FOREIGN, Following, Logs
from tests.resume.viewers import Viewer, WebSocketViewer, watch

pytestmark = pytest.mark.service

GAMES: Final = ("crash", "dice", "plinko")
MOST_CLIENTS: Final = 4
HIGH: Final = 9
"""A point that passes every filter of these tests."""

some_games = st.sets(st.sampled_from(GAMES), min_size=1).map(sorted)
protocols = st.sampled_from(["ws", "sse"])
choices = st.integers(0, 39)
"""Which of several. The choices depend on timing, and the generated stories must not."""


class Client:
    """A link, and what it follows."""

    def __init__(self, viewer: Viewer, stack: AsyncExitStack) -> None:
        self.viewer = viewer
        self.stack = stack
        self.following: list[Following] = []
        self.min_point = 0

    @property
    def active(self) -> dict[str, Following]:
        return {each.game: each for each in self.following if each.ended is None}

    async def until_rounds(self, numbers: dict[str, int]) -> None:
        """Read until the given round of each game that is followed has come."""
        for game in self.active:
            if not any(round_["round_id"] == numbers[game] for round_ in self.viewer.rounds[-100:]):
                await self.viewer.until_round(numbers[game], game=game)

    def judge(self, *, whole_up_to: Cursor | None) -> None:
        for each in self.following:
            each.judge(self.viewer.seen, whole_up_to=whole_up_to if each.ended is None else None)
        for message, following in pairwise(self.viewer.seen):
            if message.get("event") == "hello" and not message["complete"]:
                assert following.get("event") == "gap", "incomplete, without a gap that follows"


class World:
    """A log, two relays and their clients."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._relay = AsyncExitStack()
        self._numbers = itertools.count(1)
        self.clients: list[Client] = []
        self.cursors: list[Cursor] = []
        """All cursors that clients have kept."""

    async def begin(self) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        nats = NatsServer(Path(folder))
        await nats.start()
        self._stack.push_async_callback(nats.kill)
        self._settings = LogSettings(url=nats.url)
        self.writer = await self._stack.enter_async_context(LogWriter.open(self._settings))
        self.logs = Logs(self.writer.epoch)
        self.cursors.append(self.logs.head)
        await self._start_relay()

    async def end(self) -> None:
        try:
            await self.settle()
        finally:
            for client in self.clients:
                await client.stack.aclose()
            await self._relay.aclose()
            await self._stack.aclose()

    async def _start_relay(self) -> None:
        started = [running(self._settings, replay={"ring_rounds": rounds}) for rounds in (4, 7)]
        self._urls = itertools.cycle([await self._relay.enter_async_context(relay) for relay in started])
        self.url = next(self._urls)
        """Of the relay that the next client connects to: each in turn."""

    # --- the log -----------------------------------------------------------------------------------------------

    async def store(self, game: str, point: int) -> None:
        number = next(self._numbers)
        [sequence] = await self.writer.store(make_round(game, number, point=f"{point}.00"))
        self.logs.store(sequence, game, number, point)

    async def rebuild(self) -> None:
        """Lose the log; the new one begins at 1. Relays notice with the first round of the new log."""
        await self.settle()
        await self.writer.rebuild()
        self.logs.rebuild(self.writer.epoch)
        await self.settle()

    async def settle(self) -> None:
        """Let every client get a round of each of its games; then no earlier round may be missing."""
        markers = await self.store_markers()
        for client in self.clients:
            await client.until_rounds(markers)
            client.judge(whole_up_to=self.logs.head)
            self.cursors += [Cursor.parse(round_["cursor"]) for round_ in client.viewer.rounds[-3:]]

    async def store_markers(self) -> dict[str, int]:
        """Store a round of each game that passes every filter; return their numbers."""
        markers = {}
        for game in GAMES:
            await self.store(game, HIGH)
            markers[game] = self.logs.rounds[-1].number
        return markers

    @asynccontextmanager
    async def relay_has_seen_everything(self) -> AsyncIterator[None]:
        """Connect to a relay that is not behind the log, so that "now" means the same to it and to the model."""
        async with watch(self.url, "", after=str(self.logs.head)) as probe:
            await self.store(GAMES[0], HIGH)
            await probe.until_round(self.logs.rounds[-1].number)
            yield

    # --- clients -----------------------------------------------------------------------------------------------

    async def connect(self, protocol: str, games: list[str], *, min_point: int = 0, **query: Any) -> Client:
        """Open a link; a client with cursors has got its hello when this returns."""
        if len(self.clients) == MOST_CLIENTS:
            await self.leave(0)
        if min_point:
            query["min_point"] = min_point
        stack = AsyncExitStack()
        viewer = await stack.enter_async_context(watch(self.url, "", protocol=protocol, games=",".join(games), **query))
        self.url = next(self._urls)
        client = Client(viewer, stack)
        client.min_point = min_point
        self.clients.append(client)
        if "after" in query or "from_" in query:
            hello = await viewer.until(lambda _: True)
            assert hello["event"] == "hello"
        return client

    def follow(self, client: Client, games: list[str], after: Cursor, **rest: Any) -> None:
        for game in games:
            client.following.append(Following(game, self.logs, self.had_by(after), min_point=client.min_point, **rest))

    def kept(self, which: int) -> Cursor:
        """One of the newest cursors that clients have kept."""
        newest = self.cursors[-40:]
        return newest[which % len(newest)]

    def had_by(self, cursor: Cursor) -> Cursor:
        """Where following begins: a cursor that is ahead of the log is set back to its end."""
        is_ahead = cursor.epoch == self.logs.epoch and cursor.sequence > self.logs.head.sequence
        return self.logs.head if is_ahead else cursor

    async def leave(self, which: int) -> None:
        client = self.clients.pop(which)
        client.judge(whole_up_to=None)
        self.cursors += [Cursor.parse(round_["cursor"]) for round_ in client.viewer.rounds[-3:]]
        await client.stack.aclose()

    async def play(self, protocol: str, games: list[str], after: Cursor, until_number: int) -> None:
        """Replay up to a time that has passed: the relay ends it, and then no round may be missing."""
        moment = utc_text(TEN_O_CLOCK_MS + until_number * 1000)
        client = await self.connect(protocol, games, after=str(after), to=moment)
        self.follow(client, games, after, begun=0, until_number=until_number, receives_events=True)
        await client.viewer.to_the_end()
        client.judge(whole_up_to=self.logs.head)
        await self.leave(self.clients.index(client))

    async def restart_relays(self) -> None:
        """Stop both relays, which sends every WebSocket client its cursor, and start others."""
        await self._relay.aclose()
        for client in self.clients:
            await client.viewer.to_the_end()
            cursor = None
            if client.viewer.ended is not None:
                assert (client.viewer.ended["code"], client.viewer.ended["reason"]) == (1012, "draining")
                if "cursor" in client.viewer.ended:
                    cursor = Cursor.parse(client.viewer.ended["cursor"])
                    self.cursors.append(cursor)
            client.judge(whole_up_to=cursor)
            self.cursors += [Cursor.parse(round_["cursor"]) for round_ in client.viewer.rounds[-3:]]
            await client.stack.aclose()
        self.clients.clear()
        await self._start_relay()


class Machine(RuleBasedStateMachine):
    """What may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World()

    def do(self, step: Coroutine[Any, Any, Any]) -> Any:
        async def within_a_minute() -> Any:
            async with asyncio.timeout(60):
                return await step

        return self.runner.run(within_a_minute())

    def teardown(self) -> None:
        try:
            self.do(self.world.end())
        finally:
            self.runner.close()

    @initialize()
    def begin(self) -> None:
        self.do(self.world.begin())

    @rule(rounds=st.lists(st.tuples(st.sampled_from(GAMES), st.integers(0, 9)), min_size=1, max_size=15))
    def store(self, rounds: list[tuple[str, int]]) -> None:
        for game, point in rounds:
            self.do(self.world.store(game, point))

    @rule(share=st.floats(0, 1))
    def purge(self, share: float) -> None:
        sequence = round(self.world.logs.head.sequence * share)
        if sequence > self.world.logs.floor:
            self.do(self.world.writer.purge_up_to(sequence))
            self.world.logs.purge(sequence)

    @rule()
    def rebuild(self) -> None:
        self.do(self.world.rebuild())

    @rule()
    def restart_relays(self) -> None:
        self.do(self.world.restart_relays())

    @rule()
    def settle(self) -> None:
        self.do(self.world.settle())

    @rule(protocol=protocols, games=some_games, min_point=st.sampled_from([0, 0, 5]))
    def watch_live(self, protocol: str, games: list[str], min_point: int) -> None:
        """From now on, without cursors."""

        async def connect() -> None:
            async with self.world.relay_has_seen_everything():
                client = await self.world.connect(protocol, games, min_point=min_point)
            self.world.follow(client, games, self.world.logs.head, begun=0)
            await self.world.settle()

        self.do(connect())

    @rule(protocol=protocols, games=some_games, count=st.integers(1, 30))
    def watch_last(self, protocol: str, games: list[str], count: int) -> None:
        async def connect() -> None:
            async with self.world.relay_has_seen_everything():
                client = await self.world.connect(protocol, games, last=count)
            self.world.follow(client, games, self.world.logs.head, begun=0, last=count)
            if self.world.logs.holds(games):  # rounds stored before it has begun count too
                await client.viewer.until_rounds(1)
            await self.world.settle()

        self.do(connect())

    @rule(protocol=protocols, games=some_games, share=st.floats(0, 1.2))
    def watch_from(self, protocol: str, games: list[str], share: float) -> None:
        async def connect() -> None:
            logs = self.world.logs
            number = max(1, round(share * (logs.rounds[-1].number if logs.rounds else 1)))
            moment = utc_text(TEN_O_CLOCK_MS + number * 1000)
            # In the model a purge comes before or after; here, before.
            client = await self.world.connect(protocol, games, from_=moment)
            begin = Cursor(logs.epoch, 0)
            self.world.follow(client, games, begin, begun=0, since_number=number, receives_events=True)

        if round(share * 100) <= 100:
            self.do(connect())

    @rule(protocol=protocols, games=some_games, min_point=st.sampled_from([0, 0, 5]), which=choices)
    def resume(self, protocol: str, games: list[str], min_point: int, which: int) -> None:
        """With a cursor that some client has kept: of any age, and of logs that are gone."""
        self.do(self.resume_after(protocol, games, min_point, self.world.kept(which)))

    @rule(
        protocol=protocols,
        games=some_games,
        epoch=st.sampled_from([FOREIGN, None, None]),
        sequence=st.integers(0, 100) | st.just(2**64 - 1),
    )
    def resume_anywhere(self, protocol: str, games: list[str], epoch: str | None, sequence: int) -> None:
        """With a cursor that no client was given."""
        self.do(self.resume_after(protocol, games, 0, Cursor(epoch or self.world.logs.epoch, sequence)))

    async def resume_after(self, protocol: str, games: list[str], min_point: int, after: Cursor) -> None:
        begin = self.world.had_by(after)
        can_be_whole = begin == after and after.epoch == self.world.logs.epoch
        client = await self.world.connect(protocol, games, min_point=min_point, after=str(after))
        self.world.follow(client, games, begin, begun=0, receives_events=True)
        hello = client.viewer.seen[0]
        if not can_be_whole:
            assert not hello["complete"]
        elif after.sequence >= self.world.logs.floor:
            assert hello["complete"]

    @rule(protocol=protocols, games=some_games, which=choices, share=st.floats(0, 1))
    def play(self, protocol: str, games: list[str], which: int, share: float) -> None:
        """A part of history, from a cursor that some client has kept up to a time."""
        logs = self.world.logs
        number = round(share * (logs.rounds[-1].number if logs.rounds else 0))
        self.do(self.world.play(protocol, games, self.world.kept(which), number))

    @precondition(lambda self: self.world.clients)
    @rule(who=choices)
    def leave(self, who: int) -> None:
        self.do(self.world.leave(who % len(self.world.clients)))

    @property
    def talkers(self) -> list[Client]:
        return [client for client in self.world.clients if isinstance(client.viewer, WebSocketViewer)]

    @precondition(lambda self: self.talkers)
    @rule(game=st.sampled_from(GAMES), who=choices, which=st.none() | choices)
    def subscribe(self, game: str, who: int, which: int | None) -> None:
        """On an open link: from a cursor, or from now on."""
        client = self.talkers[who % len(self.talkers)]
        after = None if which is None else self.world.kept(which)

        async def say() -> None:
            viewer = client.viewer
            assert isinstance(viewer, WebSocketViewer)
            # Only one replay at a time, so that its gaps can be distinguished from those of others.
            await self.world.settle()
            old = client.active.get(game)
            await viewer.say(action="subscribe", games=[game], **({"after": str(after)} if after else {}))
            answer = await viewer.until(lambda message: message.get("event") == "subscribed")
            assert answer["games"] == sorted({*client.active, game})
            begun = len(viewer.seen)
            if after is not None:
                if old is not None:
                    old.ended = begun
                self.world.follow(client, [game], self.world.had_by(after), begun=begun, receives_events=True)
                await viewer.until(lambda message: message.get("event") == "hello")
            elif old is None:
                receives_events = any(each.receives_events for each in client.following)  # the link is
                self.world.follow(client, [game], self.world.logs.head, begun=begun, receives_events=receives_events)
            await client.until_rounds(await self.world.store_markers())
            for each in client.active.values():
                each.receives_events = each.receives_events or after is not None
                if each.game != game:
                    each.not_mine |= set(range(begun, len(viewer.seen)))
            await self.world.settle()

        self.do(say())

    @precondition(lambda self: self.talkers)
    @rule(game=st.sampled_from(GAMES), who=choices)
    def unsubscribe(self, game: str, who: int) -> None:
        client = self.talkers[who % len(self.talkers)]

        async def say() -> None:
            viewer = client.viewer
            assert isinstance(viewer, WebSocketViewer)
            await viewer.say(action="unsubscribe", games=[game])
            answer = await viewer.until(lambda message: message.get("event") == "subscribed")
            assert answer["games"] == sorted({*client.active} - {game})
            if game in client.active:
                client.active[game].ended = len(viewer.seen)
            client.judge(whole_up_to=None)

        self.do(say())


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages and slices so small that a handful of rounds takes several of each; and align them."""
    whole_page = LogReader.page

    async def page(self: LogReader, start: int, *, limit: int, game: str | None = None) -> Page:
        return await whole_page(self, start, limit=min(limit, 3), game=game)

    monkeypatch.setattr(LogReader, "page", page)
    monkeypatch.setattr("relay.history.writer._SLICE", 2)
    monkeypatch.setattr("relay.history.reading.stretch.CELL", 2)
    monkeypatch.setattr("relay.history.reading.stretch._SHORT", 1)


@pytest.mark.usefixtures("small_pages")
def test_every_client_sees_what_it_was_promised() -> None:
    """Publish, connect, drop, resume, replay, filter, subscribe, unsubscribe, purge, rebuild, restart: in any order."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=14,
            stateful_step_count=20,
            phases=[Phase.generate],  # a failing example is printed as it is; shrinking it takes minutes
        ),
    )
