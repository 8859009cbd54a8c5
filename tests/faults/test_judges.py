"""The judges find what they are there for: every kind of a broken promise, made on purpose in a run that kept it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from tests.faults.judge_client import judge_client, judge_pages
from tests.faults.judge_log import judge_log
from tests.faults.values import Chain, Commit, Entry, Gap, Item, Key, LogRecord, Place, Selection, View

GAMES = ("crash", "dice")
ALL = Selection(frozenset(GAMES))


def key(number: int) -> Key:
    return Key(GAMES[number % 2], number)


def entry(sequence: int, number: int | None = None) -> Entry:
    return Entry(sequence, key(number or sequence), {"point": f"{(number or sequence) % 10}.00"})


def log_of(*entries: Entry, purged_to: int = 0, deleted: tuple[int, ...] = ()) -> LogRecord:
    stored = {one.sequence: one for one in entries}
    return LogRecord("k1", stored, purged_to, set(deleted), max(stored, default=0))


def commits_of(log: LogRecord) -> list[Commit]:
    return [Commit(number, one.key, one.extras) for number, one in enumerate(log.in_order(), 1)]


def kinds(findings: list[object]) -> list[str]:
    return [finding.kind for finding in findings]  # type: ignore[attr-defined]


LOG = log_of(*map(entry, range(1, 13)))
COMMITS = commits_of(LOG)
NUMBERS: Mapping[Key, int] = {commit.key: commit.number for commit in COMMITS}


def view_of(*items: Item, after: int | None = 0, live_after: int = 0, selection: Selection = ALL) -> View:
    return View("client", selection, receives_gaps=True, chains=[Chain(after, live_after, list(items))])


def judged(view: View, log: LogRecord = LOG, *, whole: bool = True) -> list[str]:
    return kinds(list(judge_client(view, log, NUMBERS, whole=whole)))


# --- the log ----------------------------------------------------------------------------------------------------------


def test_log_with_every_round_once_in_order() -> None:
    assert judge_log(COMMITS, LOG) == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("lost", lambda entries: [one for one in entries if one.sequence != 5]),
        ("doubled", lambda entries: [*entries, entry(13, 5)]),
        ("invented", lambda entries: [*entries, entry(13)]),
        ("reordered", lambda entries: [entry(3, 1), *entries[1:2], entry(1, 3), *entries[3:]]),
        ("changed", lambda entries: [replace(entries[0], extras={"point": "9.99"}), *entries[1:]]),
    ],
)  # fmt: skip
def test_log_that_breaks_a_promise(kind: str, change: Callable[[list[Entry]], list[Entry]]) -> None:
    """Each kind is found, and no other is reported with it."""
    assert kinds(list(judge_log(COMMITS, log_of(*change(list(LOG.in_order())))))) == [kind]


def test_rounds_of_one_transaction_keep_the_order_of_their_ids() -> None:
    commits = [Commit(1, Key("crash", 1), {}), Commit(1, Key("crash", 3), {})]
    right = log_of(Entry(1, Key("crash", 1), {}), Entry(2, Key("crash", 3), {}))
    wrong = log_of(Entry(1, Key("crash", 3), {}), Entry(2, Key("crash", 1), {}))

    assert judge_log(commits, right) == []
    assert kinds(list(judge_log(commits, wrong))) == ["reordered"]


def test_order_of_what_becomes_visible_together_is_that_of_the_ids() -> None:
    """Round 1 was committed after round 3. A source that polls may see both at once, another one may not."""
    commits = [Commit(1, Key("crash", 3), {}), Commit(2, Key("crash", 1), {})]
    log = log_of(Entry(1, Key("crash", 1), {}), Entry(2, Key("crash", 3), {}))

    assert judge_log(commits, log, by_id=True) == []
    assert kinds(list(judge_log(commits, log))) == ["reordered"]


def test_order_against_both_commits_and_ids_is_never_allowed() -> None:
    commits = [Commit(1, Key("crash", 1), {}), Commit(2, Key("crash", 3), {})]
    log = log_of(Entry(1, Key("crash", 3), {}), Entry(2, Key("crash", 1), {}))

    assert kinds(list(judge_log(commits, log, by_id=True))) == ["reordered"]


def test_purged_rounds_are_not_lost() -> None:
    log = log_of(*map(entry, range(1, 13)), purged_to=6)

    assert judge_log(COMMITS, log) == []


def test_doubles_are_allowed_only_where_they_are_expected() -> None:
    log = log_of(*map(entry, range(1, 13)), entry(13, 5))

    assert judge_log(COMMITS, log, doubles_allowed=True) == []


def test_round_whose_entry_was_removed_may_be_stored_again() -> None:
    entries = [*map(entry, range(1, 13)), entry(13, 5)]

    assert judge_log(COMMITS, log_of(*entries, deleted=(5,))) == []
    assert judge_log(COMMITS, log_of(*entries, purged_to=5)) == []
    assert kinds(list(judge_log(COMMITS, log_of(*entries, deleted=(4,))))) == ["doubled"]


# --- a client ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        view_of(*map(entry, range(1, 13))),
        view_of(*map(entry, range(8, 13)), after=7),
        view_of(*map(entry, range(9, 13)), after=None, live_after=8),
        view_of(*map(entry, range(7, 13)), after=None, live_after=8),
        view_of(*map(entry, range(1, 6)), Place(5), *map(entry, range(6, 13))),
        view_of(*(entry(number) for number in range(1, 13) if number % 2), selection=Selection(frozenset({"dice"}))),
        view_of(*map(entry, range(8, 13)), selection=Selection(frozenset(GAMES), min_point=8.0), after=12),
    ],
    ids=["all", "after", "live", "live early", "with a place", "one game", "nothing after the head"],
)
def test_client_that_got_everything(view: View) -> None:
    if view.chains[0].after == 12:
        view.chains[0].items.clear()

    assert judged(view) == []


ITEMS = list(map(entry, range(1, 13)))


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        ("lost", ITEMS[:4] + ITEMS[5:]),
        ("lost", ITEMS[:-1]),
        ("lost", [*ITEMS[:4], Place(6), *ITEMS[6:]]),
        ("doubled", [*ITEMS[:5], ITEMS[4], *ITEMS[5:]]),
        ("doubled", [*ITEMS, ITEMS[0]]),
        ("reordered", [ITEMS[1], ITEMS[0], *ITEMS[2:]]),
        ("invented", [*ITEMS[:5], replace(ITEMS[5], extras={"point": "99.00"}), *ITEMS[6:]]),
        ("false gap", [*ITEMS[:4], Gap(4, 6, "expired"), *ITEMS[6:]]),
        ("false gap", [*ITEMS, Gap(12, 12, "expired")]),
    ],
    ids=["in the middle", "at the end", "before a place", "at once", "later", "swapped", "changed", "for rounds there",
         "empty"],
)  # fmt: skip
def test_client_that_was_failed(kind: str, items: list[Item]) -> None:
    """Each kind is found, and no other is reported with it."""
    assert judged(view_of(*items)) == [kind]


def test_round_that_was_never_stored() -> None:
    assert "invented" in judged(view_of(*ITEMS, entry(13)))


def test_round_that_was_not_asked_for() -> None:
    dice = Selection(frozenset({"dice"}))

    assert judged(view_of(*ITEMS, selection=dice)) == ["not asked for"]


def test_round_before_the_cursor_is_a_repetition() -> None:
    assert judged(view_of(*ITEMS[6:], after=7)) == ["doubled"]


def test_live_round_committed_after_the_connection_was_open_is_due() -> None:
    """Even if it is the first one."""
    assert judged(view_of(*ITEMS[9:], after=None, live_after=8)) == ["lost"]


def test_live_client_that_has_a_place_gets_everything_after_it() -> None:
    assert judged(view_of(Place(6), *ITEMS[9:], after=None, live_after=9)) == ["lost"]


PURGED = log_of(*map(entry, range(1, 13)), purged_to=6)


def test_gap_covers_what_was_purged() -> None:
    assert judged(view_of(*ITEMS[:2], Gap(2, 6, "expired"), *ITEMS[6:]), PURGED) == []


def test_purged_rounds_without_a_gap() -> None:
    assert judged(view_of(*ITEMS[:2], *ITEMS[6:]), PURGED) == ["no gap"]


def test_gap_that_is_longer_than_what_was_purged() -> None:
    assert judged(view_of(*ITEMS[:2], Gap(2, 8, "expired"), *ITEMS[8:]), PURGED) == ["false gap"]


def test_rounds_deleted_from_the_middle_may_be_missing() -> None:
    assert judged(view_of(*ITEMS[:4], *ITEMS[5:]), log_of(*ITEMS, deleted=(5,))) == []


def test_chain_that_was_given_up_is_judged_up_to_its_end() -> None:
    """A client that came back without a place: what it missed in between is no loss, what it missed before is one."""
    broken = view_of(*ITEMS[:2], *ITEMS[3:5])
    broken.chains.append(Chain(None, live_after=8, items=[*ITEMS[8:]]))
    whole = view_of(*ITEMS[:5])
    whole.chains.append(Chain(None, live_after=8, items=[*ITEMS[8:]]))

    assert judged(broken) == ["lost"]
    assert judged(whole) == []


def test_end_that_may_be_cut_off_anywhere() -> None:
    assert judged(view_of(*ITEMS[:5]), whole=False) == []


# --- pages ------------------------------------------------------------------------------------------------------------

OF_GAME = [12, 10, 8, 6, 4, 2]
"""Sequences of crash, newest first."""


def test_walk_through_all_pages() -> None:
    assert judge_pages("reader", "crash", OF_GAME, LOG, newest_due=12) == []
    assert judge_pages("reader", "crash", [12, 10, 8], PURGED, newest_due=12) == []


@pytest.mark.parametrize(
    ("kind", "pages"),
    [
        ("lost", [12, 10, 6, 4, 2]),
        ("lost", OF_GAME[1:]),
        ("reordered", [12, 8, 10, 6, 4, 2]),
        ("invented", [13, *OF_GAME]),
    ],
)
def test_walk_that_was_failed(kind: str, pages: list[int]) -> None:
    assert kinds(list(judge_pages("reader", "crash", pages, LOG, newest_due=12))) == [kind]
