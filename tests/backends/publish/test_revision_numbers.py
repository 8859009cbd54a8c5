"""The numbers of corrections: one more than the log has, nothing twice, and nothing lost, whatever is yielded again."""

from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from backends.publish.clock import boot_s
from backends.publish.corrections.revision_numbers import NumberedChange, RevisionNumbers, content_digest
from backends.publish.corrections.stored_corrections import StoredCorrections
from backends.publish.window.acks import Stats
from rounds import Round, dedup_id
from tests.backends.harness import make_round


def state(letter: str, number: int = 7, *, at: str = "0") -> Round:
    """A state of a round that was committed at a time, named by a letter; V: it is voided."""
    round_ = make_round(number, "crash", extras=f'{{"point":"{letter}"}}')
    return msgspec.structs.replace(round_, voided=letter == "V", timestamp=int(at or "0"))


def revision(letter: str, number: int, *, at: str) -> Round:
    """A revision of round 7, as the log has it."""
    return msgspec.structs.replace(state(letter, at=at), revision=number)


def numbers(revisions: RevisionNumbers, *changes: tuple[str, str]) -> list[int | None]:
    """Number changes, each a time and a state; a state in lower case is yielded as a round that was finished.

    Without a time, the source has no offsets either.
    """
    found = []
    for at, letter in changes:
        round_ = state(letter.upper(), at=at)
        numbered = revisions.number(round_, b"crash:7", has_offset=bool(at), is_first=letter.islower())
        found.append(numbered.round.revision if numbered else None)
    return found


def loaded(*stored: tuple[str, str], first: int = 2) -> RevisionNumbers:
    """What a process has read of a log that has these corrections."""
    revisions = RevisionNumbers(10)
    for number, (at, letter) in enumerate(stored, first):
        revisions.load(revision(letter, number, at=at), has_offset=bool(at))
    return revisions


def test_first_correction_is_revision_2_and_the_next_is_one_more() -> None:
    assert numbers(RevisionNumbers(10), ("1", "B"), ("2", "C"), ("3", "V"), ("4", "c")) == [2, 3, 4, 5]
    assert numbers(loaded(("1", "B"), ("2", "C")), ("3", "D")) == [4]
    assert numbers(loaded(("9", "F"), first=6), ("10", "G")) == [7]


def test_state_equal_to_the_newest_is_no_revision() -> None:
    """Neither in this process nor in one that has read it; a round that is voided is voided once."""
    assert numbers(RevisionNumbers(10), ("1", "B"), ("2", "B"), ("3", "V"), ("4", "V")) == [2, None, 3, None]
    assert numbers(loaded(("1", "B")), ("2", "B"), ("3", "b")) == [None, None]
    voided_otherwise = msgspec.structs.replace(state("V"), extras="{}", finished_at="2026-01-18T10:00:31Z")
    assert content_digest(voided_otherwise) == content_digest(state("V")) != content_digest(state("B"))


def test_commit_time_is_no_content() -> None:
    later = msgspec.structs.replace(state("B"), timestamp=99)
    assert content_digest(later) == content_digest(state("B"))


def test_change_that_is_yielded_again_is_recognised() -> None:
    """There and back, also within one transaction, and what came after it is numbered on."""
    assert numbers(loaded(("1", "B"), ("2", "A")), ("1", "B"), ("2", "A"), ("3", "B")) == [None, None, 4]
    assert numbers(loaded(("1", "B"), ("1", "A")), ("1", "B"), ("1", "A"), ("1", "B")) == [None, None, 4]
    assert numbers(loaded(("1", "B"), ("1", "A"), ("1", "B")), ("1", "B"), ("1", "A"), ("1", "B")) == [None] * 3


def test_new_change_is_not_taken_for_an_old_one() -> None:
    """The same content as an earlier revision, with a time of its own or with none."""
    assert numbers(loaded(("1", "B"), ("2", "A")), ("3", "B")) == [4]
    assert numbers(loaded(("", "B"), ("", "A")), ("", "B")) == [4]


def test_round_that_is_finished_again_is_the_next_revision() -> None:
    """And the round itself, yielded again after a crash, is none."""
    revisions = loaded(("2", "V"))
    rounds = [state("A", number, at="1").to_json() for number in (8, 7)]
    revisions.load_origins([b"crash:8", b"crash:7"], ["s:1", "s:1"], rounds)
    assert numbers(revisions, ("1", "a"), ("2", "V"), ("3", "a")) == [None, None, 3]


def test_change_that_another_process_has_stored_is_not_published() -> None:
    """Its number is known after loading; what another change has taken meanwhile is numbered on."""
    revisions = RevisionNumbers(10)
    ours = [
        revisions.number(state(letter, at=at), b"crash:7", has_offset=True, is_first=False)
        for at, letter in [("1", "B"), ("2", "C"), ("3", "D")]
    ]
    numbered = [one for one in ours if one is not None]

    revisions.begin_loading()
    revisions.load(revision("B", 2, at="1"), has_offset=True)
    revisions.load(revision("X", 3, at="5"), has_offset=True)
    again = revisions.renumber(numbered)

    assert [one and one.round.revision for one in again] == [None, 4, 5]
    assert numbers(revisions, ("4", "E")) == [6]


def test_ack_that_was_lost_counts_without_offsets_too() -> None:
    """B and A were stored, and no ack came: the log has them under the numbers that they were sent with."""
    revisions = RevisionNumbers(10)
    ours = [revisions.number(state(letter), b"crash:7", has_offset=False, is_first=False) for letter in "BAB"]
    revisions.begin_loading()
    for number, letter in [(2, "B"), (3, "A")]:
        revisions.load(revision(letter, number, at=""), has_offset=False)

    again = revisions.renumber([one for one in ours if one is not None])

    assert [one and one.round.revision for one in again] == [None, None, 4]


def test_change_that_was_overtaken_is_not_published_after_a_later_one() -> None:
    """Another process took the number of B; C was sent at the same time, and stored."""
    revisions = RevisionNumbers(10)
    ours = [
        revisions.number(state(letter, at=at), b"crash:7", has_offset=True, is_first=False)
        for at, letter in [("1", "B"), ("2", "C"), ("3", "D")]
    ]
    revisions.begin_loading()
    revisions.load(revision("X", 2, at="5"), has_offset=True)
    revisions.load(revision("C", 3, at="2"), has_offset=True)

    again = revisions.renumber([one for one in (ours[0], ours[2]) if one is not None])

    assert [one and one.round.revision for one in again] == [None, 4]


def test_memory_is_bounded_and_the_oldest_are_forgotten() -> None:
    revisions = RevisionNumbers(2)
    for number in (1, 2, 1, 3):
        key = dedup_id("crash", number).encode()
        revisions.number(state("B", number, at="1"), key, has_offset=True, is_first=False)
    assert len(revisions) == 2
    assert b"crash:1" in revisions
    assert b"crash:3" in revisions
    assert not revisions.is_complete


def test_row_that_changes_all_the_time_is_numbered_on() -> None:
    revisions = RevisionNumbers(10)
    found = numbers(revisions, *[(str(at), "BC"[at % 2]) for at in range(1000)])
    assert found == list(range(2, 1002))
    revisions.begin_loading()
    assert numbers(revisions, ("1001", "D")) == [2]  # the log has none of them


# --- crashes -------------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """What the source yields."""

    number: int
    at: str
    letter: str
    is_first: bool


class Stored(NamedTuple):
    """What the log holds."""

    number: int
    at: str
    letter: str
    revision: int


@st.composite
def histories(draw: st.DrawFn) -> list[list[Change]]:
    """Transactions of a table: rounds are finished, changed, voided, and finished again; nothing stays as it was."""
    now: dict[int, str] = {}
    transactions = []
    for at in range(draw(st.integers(1, 12))):
        transaction = []
        for number, letter in draw(st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ABV")), max_size=4)):
            before = now.get(number)
            if letter == before or (before is None and letter == "V"):
                continue
            now[number] = letter
            transaction.append(Change(number, str(at + 1), letter, before is None or before == "V"))
        transactions.append(transaction)
    return transactions


class Process:
    """A publisher, as far as numbers are concerned, over a log that stores in order."""

    def __init__(self, log: list[Stored]) -> None:
        self.log = log
        self.revisions = RevisionNumbers(10)
        self.known = {one.number for one in log}
        self.read_to = 0
        self.pending: list[tuple[Stored, NumberedChange | None]] = []
        self.load()
        rounds = [one for one in log if one.revision == 1]
        self.revisions.load_origins(
            [dedup_id("crash", one.number).encode() for one in rounds],
            ["an offset"] * len(rounds),
            [state(one.letter, one.number, at=one.at).to_json() for one in rounds],
        )

    def load(self) -> None:
        self.revisions.begin_loading()
        for one in self.log[self.read_to :]:
            if one.revision > 1:
                stored = msgspec.structs.replace(state(one.letter, one.number, at=one.at), revision=one.revision)
                self.revisions.load(stored, has_offset=True)
        self.read_to = len(self.log)

    def read(self, change: Change) -> None:
        key = dedup_id("crash", change.number).encode()
        if change.is_first and key not in self.revisions:
            if change.number not in self.known:
                self.pending.append((Stored(change.number, change.at, change.letter, 1), None))
                self.known.add(change.number)
            return
        numbered = self.revisions.number(
            state(change.letter, change.number, at=change.at), key, has_offset=True, is_first=change.is_first
        )
        if numbered is not None:
            revision = numbered.round.revision
            self.pending.append((Stored(change.number, change.at, change.letter, revision), numbered))

    def store(self, count: int, *, lost_acks: bool) -> None:
        self.log += [stored for stored, _ in self.pending[:count]]
        if not lost_acks:
            del self.pending[:count]
            return
        self.load()  # the connection was lost
        again = iter(self.revisions.renumber([numbered for _, numbered in self.pending if numbered is not None]))
        rest: list[tuple[Stored, NumberedChange | None]] = []
        for stored, numbered in self.pending:
            if numbered is None:
                if stored not in self.log:
                    rest.append((stored, None))
            elif (new := next(again)) is not None:
                rest.append((stored._replace(revision=new.round.revision), new))
        self.pending = rest


@given(histories(), st.data())
def test_crashes_at_any_moment_lose_and_double_nothing(history: list[list[Change]], data: st.DataObject) -> None:
    """The log has each state that a round was in, once, in the order of the source, numbered from 2 without a gap."""
    log: list[Stored] = []
    confirmed = 0
    is_done = False
    while not is_done:
        process = Process(log)
        at = confirmed
        is_done = crashes = data.draw(st.integers(0, 3)) == 0
        last = len(history) if crashes else data.draw(st.integers(confirmed, len(history)))
        while at < last:
            for change in history[at]:
                process.read(change)
            at += 1
            count = data.draw(st.integers(0, len(process.pending)))
            process.store(count, lost_acks=data.draw(st.booleans()))
            if not process.pending and data.draw(st.booleans()):
                confirmed = at
        if is_done:
            process.store(len(process.pending), lost_acks=False)

    for number in range(2):
        expected = [change.letter for transaction in history for change in transaction if change.number == number]
        found = [one for one in log if one.number == number]
        assert [one.letter for one in found] == expected
        assert [one.revision for one in found] == list(range(1, len(expected) + 1))


def test_log_is_asked_before_a_number_is_given_that_may_be_taken() -> None:
    """Once in a lease, since another process may store corrections too; and of a round that was forgotten."""
    known = StoredCorrections(2, Stats())
    assert known.must_ask(b"crash:1", boot_s(), 40.0)
    known.read_at = 100.0
    assert not known.must_ask(b"crash:1", 139.0, 40.0)
    assert known.must_ask(b"crash:1", 141.0, 40.0)
    for number in (1, 2, 3):
        key = dedup_id("crash", number).encode()
        known.revisions.number(state("B", number), key, has_offset=False, is_first=False)
    assert known.must_ask(b"crash:1", 101.0, 40.0)
    assert not known.must_ask(b"crash:3", 101.0, 40.0)


def test_changes_that_another_source_has_stored_are_no_revisions() -> None:
    """The same changes come from another backend with other offsets; the times of their commits tell what is later."""

    def at(timestamp: int, letter: str, revision: int = 1) -> Round:
        return msgspec.structs.replace(state(letter), timestamp=timestamp, revision=revision)

    def number(round_: Round, *, is_first: bool = False) -> int | None:
        found = revisions.number(round_, b"crash:7", has_offset=True, is_first=is_first, source=b"new")
        return found.round.revision if found else None

    revisions = RevisionNumbers(10)
    for revision, letter in enumerate("BCB", 2):
        revisions.load(at(10 * revision, letter, revision), has_offset=True, source=b"old")

    assert number(at(10, "A"), is_first=True) is None
    assert [number(at(ms, letter)) for ms, letter in ((20, "B"), (30, "C"), (40, "B"))] == [None, None, None]
    assert number(at(40, "D")) == 5, "in the same millisecond, and other than what is stored"
    revisions.load(at(40, "D", 5), has_offset=True, source=b"new")
    assert number(at(10, "A"), is_first=True) is None
    assert [number(at(ms, letter)) for ms, letter in ((20, "B"), (30, "C"), (40, "B"))] == [None, None, None]
    assert number(at(35, "E")) is None
    assert number(at(50, "E")) == 6
