"""Corrections in a real log: their subject, ids and numbers, after crashes and beside other processes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from backends.contract import Captured, Rejected, SourceOffsets
from backends.publish.log_offsets import LogOffsets
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client.connection import connect
from roundlog.direct_get import get_batch
from roundlog.log_settings import LogSettings
from roundlog.stream import read_log
from roundlog.tail import newest_ids
from rounds import Round
from tests.backends.harness import DeadLetters, make_round
from tests.backends.publish.test_publisher import duplicate_window_passed
from tests.nats import NatsServer, nats_client
from tests.nats_cluster import nats_cluster
from tests.security.accounts import PASSWORDS, log_of, server_of

pytestmark = pytest.mark.service


class Offset(NamedTuple):
    """A transaction, and the number of the change in it."""

    transaction: int
    place: int


def change(number: int, letter: str, *, correction: bool = True) -> Captured[Offset]:
    """A change of round `number` of crash to the state `letter`; V: it is voided."""
    round_ = make_round(number, "crash", extras=f'{{"point":"{letter}"}}')
    return Captured(msgspec.structs.replace(round_, voided=letter == "V"), Offset(0, 0), correction)


def first(number: int, letter: str = "A") -> Captured[Offset]:
    return change(number, letter, correction=False)


_STARTS = count()


class Table:
    """Yields transactions, and has offsets that the log keeps: the last change of a transaction has its own one, the
    others that of the transaction before, of which a process that has just started does not know where it ended."""

    def __init__(self, *transactions: list[Captured[Offset]]) -> None:
        self.transactions = transactions
        self.offsets: SourceOffsets[Offset] | None = None
        self.between: Any = None
        self.confirmed = Offset(0, 0)

    async def read(self) -> AsyncIterator[Sequence[Captured[Offset] | Rejected[Offset]]]:
        before = 10 + next(_STARTS)
        for number, transaction in enumerate(self.transactions, 1):
            if not transaction:
                continue
            rounds = [msgspec.structs.replace(item.round, timestamp=number) for item in transaction]
            offsets = [*(Offset(before, place) for place in range(1, len(rounds))), Offset(100 + number, 0)]
            before = 100 + number
            yield [
                item._replace(round=round_, offset=offset)
                for item, round_, offset in zip(transaction, rounds, offsets, strict=True)
            ]
            if self.between is not None:
                await self.between(number)

    def confirm(self, offset: Offset) -> None:
        self.confirmed = offset

    def offset_text(self, offset: Offset) -> bytes | None:
        return b"table:%d" % offset.transaction

    def attach(self, offsets: SourceOffsets[Offset]) -> None:
        self.offsets = offsets


def publisher(settings: LogSettings, table: Table, **options: Any) -> Publisher[Offset]:
    publish = PublisherSettings().model_copy(update=options)  # bounds that are too low for use
    return Publisher(settings, publish, confirm=table.confirm, rejects=DeadLetters(), with_offsets=table)


async def corrections(settings: LogSettings, subject: str = "rounds.crash~corrections") -> list[str]:
    """What the log holds of one subject, as ``<id> <state>``, in its order."""
    found: list[str] = []

    def take(headers: Mapping[str, str], data: bytes) -> None:
        round_ = Round.parse(data)
        state = "V" if round_.voided else msgspec.json.decode(round_.extras)["point"]
        assert ("~corrections" in headers["Nats-Subject"]) == (round_.revision > 1)
        found.append(f"{headers['Nats-Msg-Id']} {state}")

    async with connect(settings, name="test") as connection:
        request = {"seq": 1, "batch": 2000, "next_by_subj": subject}
        await get_batch(connection, "ROUNDS", request, take, within_s=10, failure="the test cannot read the log")
    return found


HISTORY = (
    [first(1), first(2), first(3)],
    [change(1, "B")],
    [change(1, "A"), change(2, "V")],
    [first(2, "A"), change(1, "B"), change(1, "A"), change(1, "B")],
    [first(4), change(3, "V")],
)
STORED = [
    "crash:1:2 B",
    "crash:1:3 A",
    "crash:2:2 V",
    "crash:2:3 A",
    "crash:1:4 B",
    "crash:1:5 A",
    "crash:1:6 B",
    "crash:3:2 V",
]


async def test_each_change_is_stored_once_through_restarts(nats: NatsServer) -> None:
    """A source that confirmed nothing yields everything again, and the server recognises no id any more."""
    settings = LogSettings(url=nats.url, duplicate_window_s=0.1)
    for length in range(1, len(HISTORY) + 1):
        table = Table(*HISTORY[:length])
        await publisher(settings, table).run(table.read())
        await duplicate_window_passed(nats)
    again = publisher(settings, table)
    await again.run(table.read())
    stats = again.stats

    assert await corrections(settings) == STORED
    assert await corrections(settings, "rounds.crash") == [f"crash:{number} A" for number in (1, 2, 3, 4)]
    # 8 corrections, and the 3 rounds that they are of.
    assert (stats.acked, stats.corrections, stats.corrections_skipped) == (0, 0, 11)
    async with connect(settings, name="test") as connection:
        newest = await newest_ids(connection, "ROUNDS")
        info = await read_log(connection, settings)
    assert newest["crash"] == 4
    assert info.last_at is not None


async def test_number_that_another_process_has_taken_is_not_used_twice(nats: NatsServer) -> None:
    """Another process stores other changes of the same rounds, after this one has read what the log has.

    The newest state is that of the one that has read last; B, which was overtaken by C, is not published after it.
    """
    settings = LogSettings(url=nats.url)
    table, other = Table([first(1), first(2)], [change(1, "B"), change(2, "B"), change(1, "C")]), Table()

    async def between(transaction: int) -> None:
        if transaction == 1:
            other.transactions = ([change(1, "X"), change(2, "B")],)
            await publisher(settings, other).run(other.read())

    table.between = between
    publishing = publisher(settings, table)
    await publishing.run(table.read())

    assert await corrections(settings) == ["crash:1:2 X", "crash:2:2 B", "crash:1:3 C"]
    # Both have read it all, and number on.
    later = Table([], [], [change(1, "D")])
    await publisher(settings, later).run(later.read())
    assert (await corrections(settings))[-1] == "crash:1:4 D"


async def test_correction_that_was_purged_within_the_window_is_stored_again(nats: NatsServer) -> None:
    """The server takes it for stored, under the same id."""
    settings, table = LogSettings(url=nats.url), Table([first(1)], [change(1, "B")])
    await publisher(settings, table).run(table.read())
    async with nats_client(settings) as nc:
        await nc.jetstream().purge_stream("ROUNDS")

    await publisher(settings, table).run(table.read())

    assert await corrections(settings) == ["crash:1:2~1 B"]
    assert await corrections(settings, "rounds.crash") == ["crash:1~1 A"]
    more = Table([], [], [change(1, "C")])
    await publisher(settings, more).run(more.read())
    assert (await corrections(settings))[-1] == "crash:1:3 C"


async def test_round_whose_corrections_are_not_held_in_memory_is_looked_up(nats: NatsServer) -> None:
    """Beyond the bound of memory the number is still one more than the log has."""
    settings = LogSettings(url=nats.url)
    table = Table([change(number, "B") for number in range(1, 6)], [change(1, "C"), change(5, "C")])
    publishing = publisher(settings, table, correction_rounds=2)
    await publishing.run(table.read())
    later = Table([], [], [change(number, "D") for number in (2, 1)])
    await publisher(settings, later, correction_rounds=2).run(later.read())

    assert (await corrections(settings))[5:] == ["crash:1:3 C", "crash:5:3 C", "crash:2:3 D", "crash:1:4 D"]


async def test_newest_rounds_of_games_are_no_corrections(nats: NatsServer) -> None:
    """What a backend asks the log for at its start, where the newest entry is a correction."""
    settings, table = LogSettings(url=nats.url), Table([first(1)], [first(9)], [change(1, "B")])
    await publisher(settings, table).run(table.read())

    again: list[str] = []

    def comes_again(text: str) -> bool:
        again.append(text)
        return False

    async with LogOffsets[Offset](settings) as offsets:
        assert await offsets.newest() == {"crash": 9}
        await offsets.recall("table", comes_again)
    assert again == ["101", "102", "103"]


async def test_permissions_of_ingest_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the accounts of infra/: corrections, those of a process before this one, and what was purged."""
    for name, password in PASSWORDS.items():
        monkeypatch.setenv(name, password)
    server = server_of(tmp_path)
    await server.start()
    try:
        settings = log_of(server, "ingest")
        table = Table(*HISTORY)
        await publisher(settings, table).run(table.read())
        async with nats_client(log_of(server, "operator")) as nc:
            await nc.jetstream().purge_stream("ROUNDS", subject="rounds.crash~corrections")
        again = publisher(settings, table)
        await again.run(table.read())
        found = await corrections(settings)
    finally:
        await server.kill()

    assert found[0] == "crash:1:2~1 B"
    assert [one.replace("~1", "") for one in found] == STORED
    assert again.stats.corrections == len(STORED)


@pytest.mark.heavy
async def test_replicated_log_has_corrections_after_their_rounds(tmp_path: Path) -> None:
    """Rounds of a game and their corrections keep their order, one at a time and in batches; each is stored once."""
    async with nats_cluster(tmp_path) as servers:
        settings = LogSettings(url=servers["a"].url, replicas=3)
        changes = [
            item for number in range(10, 400) for item in (first(number), change(number, "B"), change(number, "V"))
        ]
        table = Table(*HISTORY, *[changes[at : at + 50] for at in range(0, len(changes), 50)])
        await publisher(settings, table).run(table.read())
        again = publisher(settings, table)
        await again.run(table.read())

        assert (again.stats.acked, again.stats.corrections) == (0, 0)
        found = await corrections(settings, "rounds.*")
        of_one = [one for one in found if one.startswith(("crash:77 ", "crash:77:"))]
        assert of_one == ["crash:77 A", "crash:77:2 B", "crash:77:3 V"]
        order = {one.partition(" ")[0]: place for place, one in enumerate(found)}
        assert all(order[f"crash:{number}"] < order[f"crash:{number}:2"] for number in range(10, 400))
        assert [one for one in found if one.startswith("crash:1:") or one == "crash:2:2 V"][:3] == STORED[:3]
