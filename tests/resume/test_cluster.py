"""A log on three servers: leaders die, and replicas lag. No round is lost, repeated or reported as a gap."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from roundlog.client.connection import connect
from roundlog.entry import LogEntry, Page
from roundlog.log_errors import LogUnavailable, LogUnsuitable
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from roundlog.stream import open_log
from tests.backends.publish.test_cluster import cluster as cluster
from tests.backends.publish.test_cluster import leader_of
from tests.edits import edit
from tests.nats import NatsServer
from tests.resume.conftest import running
from tests.resume.log_writer import LogWriter, make_round
from tests.resume.test_seam import steadily_stored
from tests.resume.viewers import sequence_of, watch

pytestmark = [pytest.mark.service, pytest.mark.heavy, pytest.mark.timeout(180)]


@pytest.fixture
async def late_reader(nats: NatsServer, log: LogWriter, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LogReader]:
    """A reader of a log of 30 rounds, two games in turn, whose pages all come from a replica that has 20 of them."""
    await log.store(*(make_round(("crash", "dice")[number % 2], number) for number in range(30)))
    whole_page = LogReader.page

    async def late_page(self: LogReader, start: int, *, limit: int, game: str | None = None) -> Page:
        page = await whole_page(self, start, limit=limit, game=game)
        entries = [entry for entry in page.entries if entry.sequence <= 20]
        return Page(entries, remaining=page.remaining if entries and entries[-1] == page.entries[-1] else 0)

    monkeypatch.setattr(LogReader, "page", late_page)
    async with LogReader(LogSettings(url=nats.url, replicas=3)) as reader:
        yield reader


@pytest.mark.parametrize(("game", "step"), [(None, 1), ("crash", 2)])
async def test_leader_is_asked_at_the_end_of_a_page(late_reader: LogReader, game: str | None, step: int) -> None:
    """Rounds that the replica lacks are read from the leader; only the leader's "not found" is final."""
    found, at, remaining = list[int](), 0, 1
    while remaining:
        page = await late_reader.page_up_to(30, at + 1, limit=8, game=game)
        found += [entry.sequence for entry in page.entries]
        remaining = page.remaining
        at = found[-1]

    assert found == list(range(1, 31, step))
    assert (await late_reader.page_up_to(30, 31, limit=8)).entries == []


async def test_leader_is_not_asked_at_the_known_head(late_reader: LogReader) -> None:
    """The leader is asked only when a page ends before the known head."""
    before = late_reader.requests

    await late_reader.page_up_to(20, 11, limit=100)
    await late_reader.page_up_to(30, 1, limit=8)

    assert late_reader.requests == before + 2


async def test_cursor_that_only_the_leader_knows_is_not_ahead(late_reader: LogReader) -> None:
    """A cursor is ahead of the log only when the leader has no round from there on."""
    assert await late_reader.reached(30) == 30
    assert await late_reader.reached(31) is None


async def made(settings: LogSettings) -> None:
    """Create the log as soon as the servers have elected a leader."""
    async with asyncio.timeout(60), connect(settings, name="operator") as nc:
        while True:
            with suppress(LogUnavailable, LogUnsuitable):
                await open_log(nc, settings)
                return


async def test_replicas_that_were_added_are_noticed_by_the_first_page_that_may_be_of_one(
    cluster: dict[str, NatsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log was created with one. A page of a new replica, which is behind, is completed at once."""
    monkeypatch.setattr("roundlog.reader._LOOK_S", 0.0)
    settings = LogSettings(url=",".join(server.url for server in cluster.values()))
    await made(settings)
    async with LogWriter.open(settings) as log, LogReader(settings) as reader:
        await log.store(*(make_round("crash", number) for number in range(30)))
        whole_page = LogReader.page

        async def late_page(self: LogReader, start: int, *, limit: int, game: str | None = None) -> Page:
            page = await whole_page(self, start, limit=min(limit, 21 - start), game=game)
            return Page(page.entries, 0)

        monkeypatch.setattr(LogReader, "page", late_page)
        assert len((await reader.page_up_to(30, 1, limit=100)).entries) == 20
        assert await reader.reached(30) is None
        await edit(cluster["a"], {"num_replicas": 3})
        assert len((await reader.page_up_to(30, 1, limit=100)).entries) == 21
        assert await reader.reached(30) == 30


async def test_relay_set_to_replicas_that_are_yet_to_be_added_asks_the_leader_already(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that docs/operations.md advises: first the setting, then the edit."""
    asked, next_of_leader = asyncio.Event(), LogReader.next_of_leader

    async def ask(self: LogReader, start: int, *, game: str | None = None) -> LogEntry | None:
        asked.set()
        return await next_of_leader(self, start, game=game)

    monkeypatch.setattr(LogReader, "next_of_leader", ask)
    async with LogWriter.open(LogSettings(url=nats.url)) as log:
        await log.store(*(make_round(game, number) for game in ("crash", "dice") for number in range(3)))
        async with (
            running(LogSettings(url=nats.url, replicas=3), replay={"ring_rounds": 1}) as relay,
            watch(relay, "crash", after=log.cursor(0)) as viewer,
            asyncio.timeout(20),
        ):
            await viewer.until_rounds(3)
            await asked.wait()


async def test_leader_dies_while_clients_replay_and_follow(cluster: dict[str, NatsServer]) -> None:
    """Both continue, with every round of the log once and in order, and new ones; and a resume finds all rounds."""
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    servers = list(cluster.values())
    await made(settings)
    async with LogWriter.open(settings) as log:
        count = await log.store_many(make_round("crash", number) for number in range(20_000))
        start = log.cursor(0)

    async with (
        running(settings, replay={"ring_rounds": 20}) as relay,
        watch(relay, "crash", after=start, receive_buffer=1 << 16) as replaying,
        watch(relay, "crash") as live,
    ):
        await replaying.until_rounds(100)
        leader = await leader_of(servers)
        await cluster[leader].kill()
        left = [server for name, server in cluster.items() if name != leader]
        await leader_of(left)
        async with LogWriter.open(settings.model_copy(update={"url": ",".join(s.url for s in left)})) as log:
            for number in range(count, count + 50):
                await log.store(make_round("crash", number))
            for viewer in (replaying, live):
                await viewer.until_round(count + 49)
            async with watch(relay, "crash", after=replaying.rounds[count - 100]["cursor"]) as resumed:
                await resumed.until_round(count + 49)

    last = sequence_of(live.rounds[-1]["cursor"])
    assert replaying.sequences == list(range(1, last + 1))
    assert live.sequences == list(range(last - len(live.rounds) + 1, last + 1))
    assert resumed.sequences == list(range(count - 99 + 1, last + 1))
    assert [viewer.gaps for viewer in (replaying, live, resumed)] == [[], [], []]


async def test_hops_while_replicas_lag(cluster: dict[str, NatsServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second answer comes from a replica that lacks the newest rounds: clients see no difference."""
    random.seed(5)
    whole_page, whole_last = LogReader.page, LogReader.last

    async def late_page(self: LogReader, start: int, *, limit: int, game: str | None = None) -> Page:
        page = await whole_page(self, start, limit=limit, game=game)
        missing = random.choice([0, random.randrange(1, 6)])
        return page if page.remaining or not missing else Page(page.entries[:-missing], 0)

    async def late_last(self: LogReader) -> int:
        return max(0, await whole_last(self) - random.choice([0, random.randrange(1, 6)]))

    monkeypatch.setattr(LogReader, "page", late_page)
    monkeypatch.setattr(LogReader, "last", late_last)
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    await made(settings)
    seen, hellos = list[tuple[str, int]](), list[dict[str, object]]()
    async with (
        LogWriter.open(settings) as log,
        running(settings, replay={"ring_rounds": 2}) as one,
        running(settings, replay={"ring_rounds": 2}) as other,
        steadily_stored(log, "crash", "dice", "plinko", every_s=0.01) as stored,
    ):
        cursor = log.cursor(0)
        for _ in range(60):
            async with watch(
                random.choice([one, other]), "", games=random.choice(["crash", "crash,dice"]), after=cursor
            ) as viewer:
                await viewer.until_rounds(random.randrange(1, 8))
            hellos += viewer.events
            had = [(round_["game_slug"], round_["round_id"]) for round_ in viewer.rounds]
            at = [index for index, each in enumerate(stored) if each in had]
            games = {game for game, _ in had}
            assert had == [each for each in stored[at[0] : at[-1] + 1] if each[0] in games or each in had]
            assert sequence_of(viewer.rounds[0]["cursor"]) > sequence_of(cursor)
            seen += had
            cursor = viewer.rounds[-1]["cursor"]

    crash = [number for game, number in stored if game == "crash"]
    assert [number for game, number in seen if game == "crash"] == crash[: len([g for g, _ in seen if g == "crash"])]
    assert {hello["event"] for hello in hellos} == {"hello"}
    assert {hello["complete"] for hello in hellos} == {True}
