"""The newest revision of each game's newest round: right after a start, and through any number of other corrections."""

import pytest

from relay.live.following.feed import _up_to
from relay.live.item import Item
from relay.live.newest_revisions import Unseen
from relay.live.ring import Ring
from roundlog.entry import LogEntry
from rounds import Round
from tests.resume.log_writer import make_correction, make_round, name_of


def item(sequence: int, round_: Round) -> Item:
    return Item("k1", LogEntry(sequence, name_of(round_), round_.to_json()))


def ring_of(*items: Item, head: int, rounds_per_game: int = 3) -> Ring:
    """A ring that begins at `head`, where the log has these newest rounds and corrections."""
    ring = Ring(rounds_per_game=rounds_per_game, bytes_per_game=1 << 20)
    ring.begin(head, items)
    return ring


def latest(ring: Ring, game: str = "crash") -> int:
    """The sequence of a game's latest, for a client that asks for corrections; nothing may be unknown."""
    assert ring.revisions.unseen(ring.newest[game]) is None
    return ring.revisions.of(ring.newest[game]).sequence


def test_newest_revision_of_the_newest_round_is_kept() -> None:
    """Corrections of older rounds and of other games push nothing out; a later round has none yet."""
    ring = ring_of(head=0)
    ring.append(item(1, make_round("crash", 7)))
    assert latest(ring) == 1
    ring.append(item(2, make_correction("crash", 7, 2)))
    ring.append(item(3, make_correction("crash", 7, 3, voided=True)))
    for sequence in range(4, 40):
        ring.append(item(sequence, make_correction("crash", 6, sequence)))
    ring.append(item(40, make_round("dice", 7)))
    ring.append(item(41, make_correction("dice", 7)))
    assert (latest(ring), latest(ring, "dice")) == (3, 41)

    ring.append(item(42, make_round("crash", 8)))
    ring.append(item(43, make_correction("crash", 7, 4)))

    assert latest(ring) == 42
    assert {game: newest.sequence for game, newest in ring.newest.items()} == {"crash": 42, "dice": 40}


def test_corrections_displace_no_round_of_the_game() -> None:
    """They are held beside the rounds, with limits of their own."""
    ring = ring_of(head=0)
    for sequence in (1, 2, 3):
        ring.append(item(sequence, make_round("crash", sequence)))
    for sequence in range(4, 20):
        ring.append(item(sequence, make_correction("crash", 1, sequence)))

    assert ring.after(0, ["crash"], limit=9) is not None
    assert ring.after(0, ["crash", "crash~corrections"], limit=9) is None
    assert [each.sequence for each in ring.after(16, ["crash", "crash~corrections"], limit=9) or []] == [17, 18, 19]


def test_start_with_the_newest_correction_of_the_newest_round() -> None:
    """The last of each subject shows it."""
    ring = ring_of(item(5, make_round("crash", 7)), item(9, make_correction("crash", 7)), head=9)

    assert latest(ring) == 9


def test_start_when_all_corrections_are_older_than_the_newest_round() -> None:
    """They are of earlier rounds."""
    ring = ring_of(item(5, make_round("crash", 7)), item(4, make_correction("crash", 6)), head=9)

    assert latest(ring) == 5


@pytest.mark.parametrize("sequence", [9, 11], ids=["of an older round", "not published yet"])
def test_start_after_which_the_log_must_be_searched(sequence: int) -> None:
    """A correction after the newest round is of another round, or after the head: there may be others before it."""
    ring = ring_of(item(5, make_round("crash", 7)), item(sequence, make_correction("crash", 6)), head=10)
    newest = ring.newest["crash"]
    assert ring.revisions.unseen(newest) == Unseen(5, 10)

    ring.revisions.found(newest, item(8, make_correction("crash", 7)))

    assert latest(ring) == 8


def test_search_is_not_needed_once_a_later_revision_has_come() -> None:
    """What it finds later is older."""
    ring = ring_of(item(5, make_round("crash", 7)), item(9, make_correction("crash", 6)), head=10)
    newest = ring.newest["crash"]

    ring.append(item(11, make_correction("crash", 7, 3)))
    assert latest(ring) == 11
    ring.revisions.found(newest, item(8, make_correction("crash", 7)))

    assert latest(ring) == 11


def test_search_is_not_needed_once_a_later_round_has_come() -> None:
    """Its corrections come after it."""
    ring = ring_of(item(5, make_round("crash", 7)), item(9, make_correction("crash", 6)), head=10)

    ring.append(item(11, make_round("crash", 8)))

    assert latest(ring) == 11


def test_entry_that_is_no_correction_changes_nothing() -> None:
    """Another program may publish to the subject."""
    ring = ring_of(item(5, make_round("crash", 7)), head=5)

    for sequence, data in enumerate([b"{}", make_round("crash", 7).to_json()], start=6):
        ring.append(Item("k1", LogEntry(sequence, "crash~corrections", data)))
    ring.append(Item("k1", LogEntry(8, "crash~corrections", make_correction("dice", 7).to_json())))

    assert latest(ring) == 5


def test_feed_begins_with_corrections_that_are_not_published_yet() -> None:
    """They show that the log must be searched; rounds after the head would be taken for published."""
    entries = [LogEntry(5, "crash", b""), LogEntry(9, "dice~corrections", b""), LogEntry(11, "crash~corrections", b"")]

    assert _up_to(10, [*entries, LogEntry(12, "dice", b"")]) == entries
