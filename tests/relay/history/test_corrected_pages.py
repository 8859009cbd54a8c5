"""Pages of one game with its corrections: both are read by themselves; one read of corrections serves many pages."""

from typing import Any, cast

import pytest

from relay.history.reading import corrections as corrections_module
from relay.history.reading.pages import PageSource
from relay.history.reading.stretch import Stretch, corrected
from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.hub import Hub
from relay.live.ring import Ring
from roundlog.entry import LogEntry
from rounds import Cursor
from rounds.subjects import corrections_of, with_corrections
from tests.resume.log_writer import make_stored
from tests.resume.memory_log import MemoryLog

CORRECTIONS = corrections_of("crash")
BOTH = with_corrections({"crash"})


def stretch(name: str, *sequences: int, covered_to: int, gap: Gap | None = None) -> Stretch:
    return Stretch("k1", [LogEntry(sequence, name, b"") for sequence in sequences], covered_to, gap)


def sequences(page: Stretch) -> list[int]:
    found = [entry.sequence for entry in page.entries]
    assert [item.sequence for item in page.items()] == found
    return found


def gap_to(end: int, *, begin: int = 0) -> Gap:
    return Gap(Cursor("k1", begin), Cursor("k1", end), GapReason.EXPIRED)


def test_page_without_corrections_is_that_of_the_rounds() -> None:
    """Its items are shared with those that did not ask for corrections."""
    rounds = stretch("crash", 11, 14, covered_to=15)

    assert corrected(rounds, stretch(CORRECTIONS, 3, 10, 16, covered_to=90), 10, finds_gaps=True) is rounds


def test_corrections_of_the_page_are_merged_into_it() -> None:
    """Not those before it, which an earlier page had, nor those after it."""
    rounds = stretch("crash", 11, 14, covered_to=15)
    page = corrected(rounds, stretch(CORRECTIONS, 9, 12, 15, 16, covered_to=90), 10, finds_gaps=True)

    assert (sequences(page), page.covered_to) == ([11, 12, 14, 15], 15)
    assert page.items()[0] is rounds.items()[0]


def test_page_ends_where_the_first_of_both_does() -> None:
    """What comes after is not whole, and is read again."""
    page = corrected(
        stretch("crash", 11, 14, 20, covered_to=20), stretch(CORRECTIONS, 12, 15, covered_to=15), 10, finds_gaps=True
    )

    assert (sequences(page), page.covered_to) == ([11, 12, 14, 15], 15)


def test_what_was_purged_between_the_two_reads_is_in_the_gap() -> None:
    """Corrections up to there may be gone. An older gap, and one that was not looked for, change nothing."""
    rounds, later = stretch("crash", 11, 14, 18, covered_to=20), stretch(CORRECTIONS, 16, covered_to=30, gap=gap_to(14))

    page = corrected(rounds, later, 10, finds_gaps=True)
    assert (page.gap, sequences(page)) == (gap_to(14, begin=10), [16, 18])
    assert corrected(rounds, later, 10, finds_gaps=False).gap is None
    assert corrected(rounds, later, 14, finds_gaps=True).gap is None


def log_of(*names: str) -> MemoryLog:
    log = MemoryLog()
    for sequence, name in enumerate(names, start=1):
        log.store(LogEntry(sequence, name, make_stored(name, sequence).to_json()), at_ms=0)
    return log


def source_of(log: MemoryLog, *, head: int) -> tuple[PageSource, Hub]:
    hub = Hub(Ring(rounds_per_game=5, bytes_per_game=1 << 20), unsent_bytes=1000)
    hub.begin(Bounds("k1", 1, head))
    return PageSource(hub, cast("Any", log), concurrent=1), hub


async def pages_of(log: MemoryLog, *, limit: int, head: int) -> list[tuple[list[int], int]]:
    """Read one game with its corrections, page after page, without a look for gaps: one request each."""
    source, hub = source_of(log, head=head)
    position, pages = 0, []
    while position < head:
        page = await source.read(position, BOTH, generation=hub.generation, limit=limit, finds_gaps=False)
        pages.append((sequences(page), page.covered_to))
        position = page.covered_to
    return pages


async def test_one_read_of_corrections_serves_many_pages() -> None:
    """Of 100 rounds with two corrections, in pages of 10: 10 requests for rounds and one for corrections."""
    names = ["crash"] * 102
    names[30], names[80] = CORRECTIONS, CORRECTIONS
    log = log_of(*names)

    pages = await pages_of(log, limit=10, head=102)

    assert [sequence for page, _ in pages for sequence in page] == list(range(1, 103))
    assert log.requests == 11


async def test_corrections_as_many_as_rounds() -> None:
    """Each page is whole up to where it ends."""
    log = log_of(*(["crash", CORRECTIONS, CORRECTIONS] * 20))

    pages = await pages_of(log, limit=10, head=60)

    assert [sequence for page, _ in pages for sequence in page] == list(range(1, 61))


async def test_corrections_of_a_moment_ago_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deleted from the log is not sent for long."""
    monkeypatch.setattr(corrections_module, "_FRESH_S", -1.0)
    log = log_of(*(["crash"] * 20), CORRECTIONS)

    await pages_of(log, limit=10, head=21)

    assert log.requests == 4


async def test_page_that_ends_after_what_this_relay_has_seen() -> None:
    """The log has reached its end, so corrections are whole up to there."""
    source, hub = source_of(log_of("crash", "crash", CORRECTIONS, "crash"), head=1)

    page = await source.read(1, BOTH, generation=hub.generation, finds_gaps=False)

    assert (sequences(page), page.covered_to) == ([2, 3, 4], 4)


async def test_kept_corrections_are_not_used_for_an_earlier_page() -> None:
    """Those between the two positions are not among them."""
    log = log_of("crash", CORRECTIONS, "crash", CORRECTIONS, "crash")
    source, hub = source_of(log, head=5)

    later = await source.read(3, BOTH, generation=hub.generation, finds_gaps=False)
    earlier = await source.read(0, BOTH, generation=hub.generation, finds_gaps=False)

    assert (sequences(later), sequences(earlier)) == ([4, 5], [1, 2, 3, 4, 5])


async def test_kept_corrections_are_not_used_for_what_was_stored_since() -> None:
    """A page that reaches further needs newer ones."""
    log = log_of("crash", CORRECTIONS)
    source, hub = source_of(log, head=2)
    await source.read(0, BOTH, generation=hub.generation, finds_gaps=False)
    for sequence, name in ((3, CORRECTIONS), (4, "crash")):
        log.store(LogEntry(sequence, name, make_stored(name, sequence).to_json()), at_ms=0)

    page = await source.read(0, BOTH, generation=hub.generation, limit=400, finds_gaps=False)

    assert sequences(page) == [1, 2, 3, 4]
