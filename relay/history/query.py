"""Answers about the past, newest round first: what ``/api/history`` answers from.

Owns reading backwards, which the log cannot do: it guesses where to begin, reads forward from there, and reverses the
result. A request reads a bounded amount; the next one continues where it stopped.
"""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from relay.errors import CursorLost
from relay.history.history import History
from relay.history.reading.pages import PAGE, LogChanged
from relay.history.reading.payer import RELAY, Payer
from relay.history.reading.reach_back import NEAR
from relay.history.reading.stretch import CELL
from relay.history.start import SETTLE_S
from relay.history.walk import resume, resume_since
from relay.live.bounds import Bounds, GapReason
from relay.live.channels import Subscription
from relay.live.hub import Generation
from relay.live.item import Item
from rounds import Cursor
from rounds.subjects import games_of

DEFAULT_LIMIT: Final = 500
MAX_LIMIT: Final = 1000

_MOST_READ: Final = 20_000
"""Rounds read from the log for one request; a rare match may need several pages to be found."""
_WIDEST: Final = 1 << 40
_AT_HAND: Final = 500
"""The largest page that is answered at once: 0.2 ms, when its rounds were rendered before."""
_RENDERED_AT_ONCE: Final = 20
"""Rounds of it that were not."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which rounds of the past: those between two cursors and between two times, the newest `limit` of them."""

    wanted: Subscription
    limit: int
    before: Cursor | None = None  # exclusive
    after: Cursor | None = None  # exclusive
    since_ms: int | None = None  # inclusive
    until_ms: int | None = None  # inclusive
    payer: Payer = RELAY  # who is charged for what is read of the log, and waits for its turns


class HistoryPage(NamedTuple):
    """Rounds, newest first, and where the next page begins."""

    items: list[Item]
    next_before: Cursor | None  # None: this is the very end
    complete: bool  # False: rounds after `Query.after` are gone, or those from `Query.since_ms` on may be


async def look_back(history: History, query: Query) -> HistoryPage:
    """Answer a query about the past.

    Raises:
        CursorLost: A cursor is of another log, or after the end of this one.
        LogUnavailable: The log has to be read and does not answer.
        Exception: The log has to be read, and the payer is over its limit: what its meter refuses requests with.
    """
    while True:
        try:
            return await _look_back(history, query)
        except LogChanged:
            continue


async def _look_back(history: History, query: Query) -> HistoryPage:
    if query.after is None and query.since_ms is None and query.until_ms is None:
        page = await _from_memory(history, query)
        if page is None:
            await history.reach_back(max(0, history.hub.head.sequence - NEAR), query.wanted.games, query.payer)
            page = await _from_memory(history, query)
        if page is not None:
            return page
    generation = history.hub.generation
    bounds = await _bounds(history, query)
    floor, complete = await _floor(history, query, bounds)
    ceiling = await _ceiling(history, query, bounds)
    items = list[Item]()
    read = 0
    async for window in _windows(history, query, generation, floor, ceiling):
        items += await _matching(history, query, window.items, limit=query.limit - len(items))
        if len(items) == query.limit:
            return HistoryPage(items, bounds.at(items[-1].sequence), complete)
        read += window.read
        if read >= _MOST_READ:
            return HistoryPage(items, bounds.at(window.begin), complete)
    return HistoryPage(items, None, complete)


def page_at_hand(history: History, query: Query) -> HistoryPage | None:
    """Return a page as `look_back` does, when it is in memory and little work; None otherwise."""
    if query.after is not None or query.since_ms is not None or query.until_ms is not None:
        return None
    if not query.wanted.filter.is_empty or query.limit > _AT_HAND:
        return None
    bounds = history.hub.bounds
    items = _recent(history, query, bounds)
    if items is None or sum([not item.is_rendered for item in items]) > _RENDERED_AT_ONCE:
        return None
    return _whole_page(query, bounds, [item for item in items if item.valid])


async def _from_memory(history: History, query: Query) -> HistoryPage | None:
    """Return a whole page from the ring; None when the ring does not hold one."""
    bounds = history.hub.bounds
    recent = _recent(history, query, bounds)
    if recent is None:
        return None
    return _whole_page(query, bounds, await _matching(history, query, recent, limit=query.limit))


def _recent(history: History, query: Query, bounds: Bounds) -> list[Item] | None:
    """Return the newest rounds in memory among which a page may be; None when memory is no answer."""
    if query.before is not None and query.before.epoch != bounds.epoch:
        return None
    before = bounds.head + 1 if query.before is None else query.before.sequence
    if before > bounds.head + 1:  # another relay, a moment ahead of this one, gave the cursor
        return None
    limit = query.limit if query.wanted.filter.is_empty else PAGE
    return history.hub.ring.before(before, query.wanted.games, limit=limit)


def _whole_page(query: Query, bounds: Bounds, items: list[Item]) -> HistoryPage | None:
    is_whole = len(items) == query.limit
    return HistoryPage(items, bounds.at(items[-1].sequence), True) if is_whole else None


async def _matching(history: History, query: Query, items: Sequence[Item], *, limit: int) -> list[Item]:
    """Return the first `limit` of `items` that a query asks for."""
    takes_all = query.wanted.filter.is_empty and query.since_ms is None and query.until_ms is None
    found = list[Item]()
    async for part in history.turns.slices(items):
        found += [item for item in part if (item.valid if takes_all else _matches(item, query))]
        if len(found) >= limit:
            break
    return found[:limit]


async def _bounds(history: History, query: Query) -> Bounds:
    """Return what the log holds; the log is asked only where it matters that this relay may be a moment behind."""
    bounds = history.hub.bounds
    is_ahead = query.before is not None and query.before.sequence > bounds.head + 1
    if query.after is None and query.since_ms is None and not is_ahead:
        return bounds
    return await history.bounds(query.before if is_ahead else query.after, payer=query.payer)


async def _floor(history: History, query: Query, bounds: Bounds) -> tuple[int, bool]:
    """Return the sequence at and below which nothing is wanted, and whether all above it is still there."""
    floor, complete = bounds.first - 1, True
    if query.after is not None:
        floor, gap = resume(query.after, bounds)
        if gap is not None and gap.reason is not GapReason.EXPIRED:
            raise _lost(query.after, bounds)
        complete = gap is None
    if query.since_ms is not None:
        position, gap = resume_since(await history.position_at(query.since_ms, payer=query.payer), bounds)
        floor, complete = max(floor, position), complete and gap is None
    return floor, complete


def _lost(cursor: Cursor, bounds: Bounds) -> CursorLost:
    return CursorLost(cursor, first=bounds.at(bounds.first), head=bounds.at(bounds.head))


async def _ceiling(history: History, query: Query, bounds: Bounds) -> int:
    """Return the sequence at and above which nothing is wanted."""
    ceiling = bounds.head + 1
    if query.before is not None:
        if query.before.epoch != bounds.epoch:
            raise _lost(query.before, bounds)
        ceiling = min(ceiling, query.before.sequence)
    if query.until_ms is not None:
        ceiling = min(ceiling, await history.position_past(query.until_ms, bounds.head, payer=query.payer) + 1)
    return ceiling


class _Window(NamedTuple):
    """What the log has of some games from sequence `begin` on, up to where the previous window began."""

    begin: int
    items: list[Item]  # newest first
    read: int  # entries of the log read for it, of all games


async def _windows(
    history: History, query: Query, generation: Generation, floor: int, ceiling: int
) -> AsyncIterator[_Window]:
    """Yield what lies between two sequences, both exclusive, newest first: from memory, then from the log.

    Raises `LogChanged` when the generation ends.
    """
    history.pages.check(generation)
    ring, games = history.hub.ring, query.wanted.games
    count = len(games_of(games))
    most = PAGE * 4 // 5  # a window that holds a little more is still read with one request
    goal = min(most, query.limit) if query.wanted.filter.is_empty else most
    # First as if every game were equally busy; then as the windows show.
    width = goal * max(1, len(ring.newest) // count)
    while ceiling > floor + 1:
        history.pages.check(generation)
        whole_from, head = ring.whole_from(games), history.hub.head.sequence
        if whole_from + 1 < ceiling <= head + 1:
            items, read = ring.before(ceiling, games, limit=PAGE), 0
            begin = max(floor, items[-1].sequence - 1 if len(items) == PAGE else whole_from) + 1
        else:
            # What this relay has not seen yet is read from the log; memory begins where that ends.
            begin = ceiling - width
            begin -= (begin - 1) % CELL  # many ask for the newest rounds at nearly the same time: one page for all
            begin = max(floor + 1, begin, head + 1 if ceiling > head + 1 else 0)
            expected = goal + goal // 4 if count == 1 else ceiling - begin
            page = min(PAGE, expected)
            items, read = await _forward(history, games, generation, begin, ceiling, page=page, payer=query.payer)
            items.reverse()
            # One game is found by its subject, however few rounds it has; for several games, all rounds are read.
            widest = _WIDEST if count == 1 else _MOST_READ // 4
            width = min(widest, width * (min(8, 1 + goal // len(items)) if items else 8))
        yield _Window(begin, [item for item in items if item.sequence > floor], read)
        ceiling = begin


async def _forward(
    history: History,
    games: frozenset[str],
    generation: Generation,
    begin: int,
    ceiling: int,
    *,
    page: int,
    payer: Payer,
) -> tuple[list[Item], int]:
    """Read from one sequence up to another, the latter exclusive; return what there is, and how many were read."""
    pages = history.pages
    items: list[Item] = []
    position, read = begin - 1, 0
    while position < ceiling - 1:
        if not pages.has(position, games, generation, limit=page, finds_gaps=False):
            payer.check()
        stretch = await pages.read(
            position, games, generation=generation, limit=page, finds_gaps=False, known=ceiling - 1, payer=payer
        )
        read += max(1, len(stretch.entries))
        items += (item for item in stretch.items() if item.sequence < ceiling and item.game in games)
        position = max(position + 1, stretch.covered_to)
    return items, read


async def is_over(history: History, query: Query) -> bool:
    """Whether a query finds nothing, now and later: its end is in the past, and its cursor is of this log.

    Raises:
        LogUnavailable: The log does not answer.
    """
    if query.until_ms is None or time.time() <= query.until_ms / 1000 + SETTLE_S or not query.payer.may_read:
        return False
    try:
        answer = await look_back(history, query)
    except CursorLost:
        return False
    return answer.complete and not answer.items and answer.next_before is None


def _matches(item: Item, query: Query) -> bool:
    if not item.valid or not item.matches(query.wanted.filter):
        return False
    timestamp = item.round.timestamp
    if query.since_ms is not None and timestamp < query.since_ms:
        return False
    return query.until_ms is None or timestamp <= query.until_ms
