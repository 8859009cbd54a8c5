"""What a client gets when rounds after its cursor are gone: a gap event that names them, and the reason."""

import pytest

from tests.resume.conftest import StartRelay
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.viewers import sequence_of, watch

pytestmark = pytest.mark.service

SMALL = 1 << 16
"""Size of a client's receive buffer: small, so that the relay soon sees that the client does not read."""

PROTOCOLS = pytest.mark.parametrize("protocol", ["ws", "sse"])


@PROTOCOLS
async def test_cursor_older_than_the_log(relay: str, log: LogWriter, protocol: str) -> None:
    """The gap ends right before the oldest round, which is sent first."""
    await log.store(*(make_round("crash", number) for number in range(1, 61)))
    await log.purge_up_to(30)

    async with watch(relay, "crash", protocol=protocol, after=log.cursor(10)) as viewer:
        await viewer.until_round(60)

    assert viewer.seen[:2] == [
        {"event": "hello", "complete": False, "first": log.cursor(31), "head": log.cursor(60)},
        {"event": "gap", "from": log.cursor(10), "to": log.cursor(30), "reason": "expired"},
    ]
    assert viewer.sequences == list(range(31, 61))


@PROTOCOLS
async def test_cursor_right_before_the_oldest_round_misses_nothing(relay: str, log: LogWriter, protocol: str) -> None:
    """The client had all rounds that are gone: no gap."""
    await log.store(*(make_round("crash", number) for number in range(1, 61)))
    await log.purge_up_to(30)

    async with watch(relay, "crash", protocol=protocol, after=log.cursor(30)) as viewer:
        await viewer.until_round(60)

    assert (viewer.events[0]["complete"], viewer.gaps) == (True, [])
    assert viewer.sequences == list(range(31, 61))


@PROTOCOLS
async def test_rounds_deleted_from_the_middle_are_gaps_in_their_place(
    relay: str, log: LogWriter, protocol: str
) -> None:
    """In a stream of several games every sequence is accounted for; what is missing has not expired."""
    await log.store(*(make_round(("crash", "dice")[number % 2], number) for number in range(1, 61)))
    await log.delete(11, 12, 30, 41, 42, 43)

    async with watch(relay, "", protocol=protocol, after=log.cursor(10), games="crash,dice") as viewer:
        await viewer.until_round(60)

    def gap(begin: int, end: int) -> dict[str, str]:
        return {"event": "gap", "from": log.cursor(begin), "to": log.cursor(end), "reason": "deleted"}

    assert viewer.gaps == [gap(10, 12), gap(29, 30), gap(40, 43)]
    ends = [sequence_of(seen["cursor"] if "cursor" in seen else seen["to"]) for seen in viewer.seen[1:]]
    assert ends == sorted(ends)
    assert viewer.sequences == [*range(13, 30), *range(31, 41), *range(44, 61)]


async def test_many_deleted_rounds_are_one_gap(relay: str, log: LogWriter) -> None:
    """All rounds of a game may be deleted, which is a hole at every few rounds: one gap, and all rounds that remain."""
    await log.store(*(make_round(("crash", "dice")[number % 2], number) for number in range(1, 61)))
    await log.delete(*range(2, 60, 2))

    async with watch(relay, "", after=log.cursor(1), games="crash,dice") as viewer:
        await viewer.until_round(60)

    assert [gap["reason"] for gap in viewer.gaps] == ["deleted", "deleted"]
    assert viewer.sequences == [*range(3, 61, 2), 60]


@PROTOCOLS
async def test_log_whose_rounds_are_all_purged(relay: str, log: LogWriter, protocol: str) -> None:
    """All earlier rounds are a gap; later rounds are sent."""
    await log.store(*(make_round("crash", number) for number in range(1, 31)))
    await log.purge_up_to(30)

    async with watch(relay, "crash", protocol=protocol, after=log.cursor(10)) as viewer:
        await viewer.until(lambda message: message["event"] == "gap")
        await log.store(make_round("crash", 31))
        await viewer.until_round(31)

    assert viewer.gaps == [{"event": "gap", "from": log.cursor(10), "to": log.cursor(30), "reason": "expired"}]
    assert viewer.sequences == [31]


@PROTOCOLS
async def test_cursor_of_another_log(relay: str, log: LogWriter, protocol: str) -> None:
    """The epoch decides, whatever the sequence: everything in this log follows."""
    await log.store(make_round("crash", 1), make_round("crash", 2))

    async with watch(relay, "crash", protocol=protocol, after="k0-1") as viewer:
        await viewer.until_round(2)

    assert viewer.events == [
        {"event": "hello", "complete": False, "first": log.cursor(1), "head": log.cursor(2)},
        {"event": "gap", "from": "k0-1", "to": log.cursor(0), "reason": "rebuilt"},
    ]
    assert viewer.sequences == [1, 2]


@PROTOCOLS
@pytest.mark.parametrize("sequence", [3, 2**64 - 1])
async def test_cursor_ahead_of_the_log(relay: str, log: LogWriter, protocol: str, sequence: int) -> None:
    """The log has lost its tail: what the client had of it may be stored again, under the same sequences."""
    await log.store(make_round("crash", 1), make_round("crash", 2))

    async with watch(relay, "crash", protocol=protocol, after=log.cursor(sequence)) as viewer:
        await viewer.until(lambda message: message["event"] == "gap")
        await log.store(make_round("crash", 3))
        await viewer.until_round(3)

    assert viewer.events[0]["complete"] is False
    assert viewer.gaps == [{"event": "gap", "from": log.cursor(2), "to": log.cursor(sequence), "reason": "ahead"}]
    assert viewer.sequences == [3]


@PROTOCOLS
async def test_cursor_before_the_first_round(relay: str, log: LogWriter, protocol: str) -> None:
    """Sequence 0 is before every round."""
    await log.store(make_round("crash", 1))

    async with watch(relay, "crash", protocol=protocol, after=log.cursor(0)) as viewer:
        await viewer.until_round(1)

    assert (viewer.events[0]["complete"], viewer.gaps) == (True, [])


async def test_time_before_the_oldest_round_of_a_log_that_has_lost_some(relay: str, log: LogWriter) -> None:
    """Rounds between that time and the oldest round may be gone: it is a gap."""
    await log.store(*(make_round("crash", number) for number in range(1, 61)))
    await log.purge_up_to(30)

    async with watch(relay, "crash", from_="2026-01-18T10:00:00Z") as viewer:
        await viewer.until_round(60)

    assert viewer.gaps == [{"event": "gap", "from": log.cursor(0), "to": log.cursor(30), "reason": "expired"}]
    assert viewer.sequences == list(range(31, 61))


@PROTOCOLS
@pytest.mark.parametrize("games", ["crash", "crash,dice"])
async def test_retention_that_overtakes_a_slow_replay(relay: str, log: LogWriter, protocol: str, games: str) -> None:
    """The client reads slowly, and rounds after its position are purged: the gap is sent between two rounds."""
    count = 30_000
    await log.store_many(make_round("crash", number, at_ms=TEN_O_CLOCK_MS) for number in range(1, count + 1))

    async with watch(relay, "", protocol=protocol, games=games, after=log.cursor(0), receive_buffer=SMALL) as viewer:
        await viewer.until_rounds(1)
        await log.purge_up_to(count - 100)
        await viewer.until_round(count)

    [gap] = viewer.gaps
    begin, end = sequence_of(gap["from"]), sequence_of(gap["to"])
    at = viewer.seen.index(gap)
    assert viewer.events[0]["complete"] is True
    assert gap["reason"] == "expired"
    assert (viewer.seen[at - 1]["cursor"], viewer.seen[at + 1]["cursor"]) == (gap["from"], log.cursor(end + 1))
    assert viewer.sequences == [*range(1, begin + 1), *range(end + 1, count + 1)]
    assert end <= count - 100


@PROTOCOLS
async def test_log_rebuilt_under_live_clients(relay: str, log: LogWriter, protocol: str) -> None:
    """A client with cursors gets a gap event; both clients get every round of the new log."""
    await log.store(make_round("crash", 1))
    old = log.cursor(1)
    async with (
        watch(relay, "crash", protocol=protocol, after=log.cursor(0)) as with_cursor,
        watch(relay, "crash", protocol=protocol, last=1) as without,
    ):
        await with_cursor.until_rounds(1)
        await without.until_rounds(1)
        await log.rebuild()
        await log.store(make_round("crash", 2), make_round("crash", 3))
        for viewer in (with_cursor, without):
            await viewer.until_round(3)

    assert with_cursor.gaps == [{"event": "gap", "from": old, "to": log.cursor(0), "reason": "rebuilt"}]
    assert without.events == []
    for viewer in (with_cursor, without):
        assert [round_["cursor"] for round_ in viewer.rounds] == [old, log.cursor(1), log.cursor(2)]


async def test_rebuilt_log_that_is_soon_longer_than_the_old_one(relay: str, log: LogWriter) -> None:
    """It is recognized by its epoch, not by its length: the rounds of the new log are sent once, from its first."""
    await log.store(*(make_round("crash", number) for number in range(1, 4)))
    async with watch(relay, "crash", after=log.cursor(0)) as viewer:
        await viewer.until_rounds(3)
        await log.rebuild()
        await log.store_many(make_round("crash", number) for number in range(101, 200))
        await viewer.until_round(199)

    assert [gap["reason"] for gap in viewer.gaps] == ["rebuilt"]
    assert viewer.ids == [1, 2, 3, *range(101, 200)]


async def test_log_rebuilt_during_a_replay(relay: str, log: LogWriter) -> None:
    """The replay continues with the new log, from its first round, after a gap."""
    count = 30_000
    await log.store_many(make_round("crash", number, at_ms=TEN_O_CLOCK_MS) for number in range(1, count + 1))
    async with (
        watch(relay, "crash", after=log.cursor(0), receive_buffer=SMALL) as viewer,
        watch(relay, "crash", after=log.cursor(count)) as live,
    ):
        await viewer.until_rounds(1)
        await log.rebuild()
        await log.store_many(make_round("crash", number) for number in range(count + 1, count + 101))
        await live.until_round(count + 100)
        await viewer.until_round(count + 100)

    [gap] = viewer.gaps
    had = sequence_of(gap["from"])
    assert (gap["reason"], gap["to"]) == ("rebuilt", log.cursor(0))
    assert had < count
    assert viewer.ids == [*range(1, had + 1), *range(count + 1, count + 101)]


async def test_memory_answers_with_rounds_that_the_log_has_purged(start_relay: StartRelay, log: LogWriter) -> None:
    """Rounds in memory are sent even when they were purged: there is no gap event where no round is missing."""
    async with start_relay() as relay, watch(relay, "crash", after=log.cursor(0)) as live:
        await log.store(*(make_round("crash", number) for number in range(1, 31)))
        await live.until_round(30)
        await log.purge_up_to(30)

        async with watch(relay, "crash", after=log.cursor(10)) as viewer:
            await viewer.until_round(30)

    assert (viewer.events[0]["complete"], viewer.gaps) == (True, [])
    assert viewer.sequences == list(range(11, 31))
