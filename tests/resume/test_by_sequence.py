"""Reads of all games by sequence, from a real log with holes and messages that are no rounds, beside a model of it."""

import random
from typing import Final

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from relay.history.reading.stretch import has_holes, stretch_of
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from roundlog.tail import ids_at, stored_pages
from tests.edits import edit
from tests.nats import NatsServer, nats_client
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import LogWriter, make_correction, make_round
from tests.resume.viewers import sequence_of, watch

pytestmark = pytest.mark.service

_GAMES: Final = ("crash", "dice", "double")
_FOREIGN: Final = ("other.crash", "other.note")


class Model:
    """What the log holds: the subject at each sequence. It changes with the log."""

    def __init__(self, nats: NatsServer, log: LogWriter, seed: int) -> None:
        self._nats = nats
        self._log = log
        self._chance = random.Random(seed)
        self._numbers = iter(range(1, 1_000_000))
        self.stored: dict[int, str] = {}
        self.last = 0

    @property
    def rounds(self) -> list[int]:
        return [sequence for sequence, subject in self.stored.items() if subject.startswith("rounds.")]

    async def store(self, count: int) -> None:
        """Store rounds of several games, some corrections, and runs of messages that are no rounds."""
        while count > 0:
            number, game = next(self._numbers), self._chance.choice(_GAMES)
            kind = self._chance.choices(("round", "correction", "foreign"), (8, 1, 1))[0]
            for _ in range(run := self._chance.choice((1, 1, 3, 20)) if kind == "foreign" else 1):
                if kind == "foreign":
                    subject = self._chance.choice(_FOREIGN)
                    sequence = await self._log.store_raw(
                        subject, b"x", headers={"Nats-Msg-Id": f"x:{number}:{len(self.stored)}"}
                    )
                else:
                    made = make_round(game, number) if kind == "round" else make_correction(game, number)
                    subject = f"rounds.{game}{'' if kind == 'round' else '~corrections'}"
                    sequence = await self._log.store_raw(
                        subject, made.to_json(), headers={"Nats-Msg-Id": f"{game}:{number}"}
                    )
                self.stored[sequence] = subject
                self.last = sequence
            count -= run

    async def damage(self) -> None:
        """Delete single messages and a run of them."""
        present = list(self.stored)
        gone = set(self._chance.sample(present, 2))
        begin = self._chance.choice(present)
        gone |= {sequence for sequence in present if begin <= sequence < begin + self._chance.choice((2, 9))}
        await self._log.delete(*gone)
        for sequence in gone:
            del self.stored[sequence]

    async def purge(self, sequence: int) -> None:
        await self._log.purge_up_to(sequence)
        self.stored = {at: subject for at, subject in self.stored.items() if at > sequence}


async def _walk(reader: LogReader, model: Model, position: int, limit: int) -> tuple[list[int], set[int]]:
    """Read from a position to the end of the log; return the rounds, and the sequences that were reported as gone."""
    rounds, gone = list[int](), set[int]()
    while position < model.last:
        page = await reader.page_up_to(model.last, position + 1, limit=limit)
        first = await reader.first() if has_holes(page, position) else None
        stretch = stretch_of(page, epoch="k1", position=position, head=model.last, oldest=None, first=first)
        assert stretch.covered_to > position
        assert len(page.entries) <= limit
        rounds += [entry.sequence for entry in stretch.entries]
        for gap in (*stretch.holes, *([stretch.gap] if stretch.gap else [])):
            gone.update(range(gap.begin.sequence + 1, gap.end.sequence + 1))
        position = stretch.covered_to
    return rounds, gone


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_round_is_read_once_and_exactly_what_is_gone_is_a_gap(
    nats: NatsServer, log: LogWriter, start_relay: StartRelay, seed: int
) -> None:
    """By the reader in pages of any size, by ingest, and by clients of a relay, while the log is damaged in between."""
    undo = await edit(nats, {"subjects": ["rounds.*", "other.*"]})
    model, chance = Model(nats, log, seed), random.Random(seed)
    settings = LogSettings(url=nats.url)
    async with LogReader(settings) as reader, connect(settings, name="test") as connection:
        for turn in range(6):
            await model.store(60)
            await model.damage()
            if turn == 3:
                await model.purge(model.last // 3)
            first = min(model.stored)
            for limit in (1, 7, 25, 500):
                position = chance.randrange(first - 1, model.last)
                rounds, gone = await _walk(reader, model, position, limit)
                assert rounds == [sequence for sequence in model.rounds if sequence > position]
                missing = {at for at in range(position + 1, max(model.stored)) if at not in model.stored}
                # Many holes of one page are one gap, which then spans what is between them.
                assert missing <= gone
                assert limit > 7 or gone.isdisjoint(model.stored)
            pages = stored_pages(connection, "ROUNDS", first=1, last=model.rounds[-1])
            assert [sequence async for page in pages for sequence in page.sequences] == model.rounds
            asked = [*model.rounds[:40:5], *range(1, 9)]
            assert set(await ids_at(connection, "ROUNDS", asked)) == set(asked).intersection(model.rounds)
            assert await reader.first() == min(model.stored)
            assert await reader.last() == model.rounds[-1]
        await edit(nats, undo)

        async with start_relay(replay={"ring_rounds": 20}) as relay:
            after = log.cursor(min(model.stored) - 1)
            newest = [at for at in model.rounds if not model.stored[at].endswith(("double", "~corrections"))]
            assert await _history_of(relay) == newest
            for protocol in ("ws", "sse"):
                games = ",".join(_GAMES)
                async with watch(relay, "", protocol=protocol, games=games, corrections=1, after=after) as viewer:
                    await viewer.until_rounds(len(model.rounds))
                assert viewer.sequences == model.rounds
                assert all(gap["reason"] == "deleted" for gap in viewer.gaps)


async def _history_of(relay: str) -> list[int]:
    """Return the sequences of the newest rounds of all games of a type, oldest first."""
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as http,
        http.get(f"{relay}/api/history/type/multiplier?limit=1000") as answer,
    ):
        return [sequence_of(round_["cursor"]) for round_ in reversed(await answer.json())]


async def test_many_other_messages_and_a_hole_of_millions_are_passed_in_few_steps(
    nats: NatsServer, log: LogWriter, relay: str
) -> None:
    """Neither is read message by message or sequence by sequence, and only the hole is a gap."""
    await log.store(*(make_round("crash", number) for number in range(1, 6)))
    undo = await edit(nats, {"subjects": ["rounds.*", "other.*"]})
    async with nats_client(LogSettings(url=nats.url)) as client:
        for _ in range(4_999):
            await client.publish("other.note", b"x")
        await client.request("other.note", b"x", timeout=10)
    await edit(nats, undo)
    await log.store(*(make_round("dice", number) for number in range(6, 11)))

    async with LogReader(LogSettings(url=nats.url)) as reader:
        page = await reader.page(3, limit=25)
        assert [entry.sequence for entry in page.entries] == [3, 4, 5, *range(5006, 5011)][: len(page.entries)]
        before = reader.requests
        page = await reader.page(6, limit=3)
        assert [entry.sequence for entry in page.entries] == [5006, 5007, 5008]
        assert page.others == [(6, 5005)]
        assert reader.requests - before <= 5
    async with watch(relay, "", games="crash,dice", after=log.cursor(2)) as viewer:
        await viewer.until_rounds(8)
        assert viewer.gaps == []
        assert await _history_of(relay) == [*range(1, 6), *range(5006, 5011)]

        await log.purge_up_to(8_000_000 - 1)
        await log.store(*(make_round("crash", number) for number in range(11, 41)))
        await viewer.until_round(40)
    async with watch(relay, "", games="crash,dice", after=log.cursor(2)) as viewer:
        await viewer.until_round(40)

    assert viewer.sequences == list(range(8_000_000, 8_000_030))
    reason = {"reason": "expired"}
    assert viewer.gaps == [{"event": "gap", "from": log.cursor(2), "to": log.cursor(7_999_999)} | reason]


async def test_expired_rounds_are_a_gap(nats: NatsServer, log: LogWriter, relay: str) -> None:
    """Also where the log got new rounds of other games meanwhile."""
    await log.store(*(make_round("crash", number) for number in range(1, 31)))
    second = 10**9
    await edit(nats, {"max_age": second, "duplicate_window": second})
    while (await log.info()).first <= 30:
        pass
    await edit(nats, {"max_age": 3600 * second})
    await log.store(make_round("dice", 31), make_round("crash", 32))

    async with watch(relay, "", games="crash,dice", after=log.cursor(10)) as viewer:
        await viewer.until_round(32)

    assert viewer.gaps == [{"event": "gap", "from": log.cursor(10), "to": log.cursor(30), "reason": "expired"}]
    assert viewer.sequences == [31, 32]
