"""What a change of a row means for its round: the one place that decides it, for every way to read a table. Pure.

A row becomes a round when it is first finished. Later changes are corrections, which only the option ``corrections``
asks for.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from backends.postgres.mapping.game_slugs import UnknownGameKey
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.table_mapper import RowState, TableMapper
from backends.postgres.mapping.unreadable_rows import UnreadableRows
from rounds import InvalidRound, Round


class Meaning(Enum):
    """What one change is."""

    ROUND = auto()  # the row was finished
    CORRECTION = auto()  # a finished round has other content, or is taken back: `Round.voided`
    REOPENED = auto()  # without corrections: a row was a round, and is none now; it may become the same round again
    UNFINISHED = auto()  # a new row that may be finished later
    OTHER = auto()  # the row is no round
    REJECTED = auto()  # the row is finished and cannot become a round
    NOTHING = auto()  # the change does not concern its round


class Outcome(NamedTuple):
    """One thing that follows from a change."""

    meaning: Meaning
    round: Round | None = None
    """Of ROUND, CORRECTION and REOPENED."""
    row: Row | None = None
    reason: str = ""
    """Of REJECTED, with `row`: one sentence."""


_NOTHING: Final = (Outcome(Meaning.NOTHING),)
_BY_STATE: Final = {
    RowState.UNFINISHED: Outcome(Meaning.UNFINISHED),
    RowState.OTHER: Outcome(Meaning.OTHER),
    RowState.VOIDED: Outcome(Meaning.OTHER),  # a round that was voided before it was finished never was one
}


def round_of(mapper: TableMapper, row: Row, timestamp_ms: int) -> Round | Outcome:
    """Return the round of a finished row, or what else the row is: OTHER, UNFINISHED or REJECTED.

    For an INSERT this is all that `changes_of` does, without a tuple for each round.

    Raises:
        UnknownGameKey: The table of games has to be read again.
    """
    try:
        made = mapper.round_or_state(row, timestamp_ms)
    except UnknownGameKey:
        raise
    except InvalidRound as error:
        return Outcome(Meaning.REJECTED, None, row, str(error))
    return _BY_STATE[made] if isinstance(made, RowState) else made


def changes_of(
    mapper: TableMapper,
    old: Row | None,
    new: Row | None,
    timestamp_ms: int,
    *,
    corrections: bool,
    unreadable: UnreadableRows | None = None,
    old_fault: str = "",
    new_fault: str = "",
) -> tuple[Outcome, ...]:
    """Say what follows from one change of a row, in the order in which it has to be published.

    Args:
        mapper: That of the table.
        old: The row before; None: it was inserted, or nothing is known of it.
        new: The row now; None: it was deleted.
        timestamp_ms: When the change was committed, Unix milliseconds.
        corrections: Whether the log also gets changes of finished rounds.
        unreadable: Remembers rounds whose rows are rejected meanwhile. With corrections only.
        old_fault: Why the text of the old row cannot be read; empty: it can.
        new_fault: The same of the new row.

    Raises:
        UnknownGameKey: The table of games has to be read again.
    """
    if old is None:
        return _NOTHING if new is None else (_outcome(_judged(mapper, new, timestamp_ms, new_fault)),)
    before = _judged(mapper, old, timestamp_ms, old_fault)
    was = before
    if unreadable is not None and not isinstance(before, Round) and before.meaning is Meaning.REJECTED:
        known = unreadable.round_of(mapper.table.source, old)
        was = before if known is None else msgspec.structs.replace(known, timestamp=timestamp_ms)
    if new is None:
        if not isinstance(was, Round) or mapper.table.deletes != "void":
            return _NOTHING
        return _taken_back(was, corrections=corrections)
    after = _judged(mapper, new, timestamp_ms, new_fault)
    if not isinstance(was, Round):
        return _NOTHING if _is_repeated(was, after) else (_outcome(after),)
    if isinstance(after, Round):
        return _of_finished(was, after, corrections=corrections)
    if after.meaning is not Meaning.REJECTED or not corrections:
        return _taken_back(was, corrections=corrections)
    # Clients keep the round: that its row cannot be read does not take it back.
    if unreadable is not None:
        unreadable.add(mapper.table.source, new, was)
    return _NOTHING if _is_repeated(before, after) else (after,)


def _judged(mapper: TableMapper, row: Row, timestamp_ms: int, fault: str) -> Round | Outcome:
    return Outcome(Meaning.REJECTED, None, row, fault) if fault else round_of(mapper, row, timestamp_ms)


def _outcome(judged: Round | Outcome) -> Outcome:
    return Outcome(Meaning.ROUND, judged) if isinstance(judged, Round) else judged


def _of_finished(before: Round, after: Round, *, corrections: bool) -> tuple[Outcome, ...]:
    if after == before or not corrections:
        return _NOTHING
    if (after.game_slug, after.round_id) == (before.game_slug, before.round_id):
        return (Outcome(Meaning.CORRECTION, after),)
    return (*_taken_back(before, corrections=True), Outcome(Meaning.ROUND, after))


def _taken_back(before: Round, *, corrections: bool) -> tuple[Outcome, ...]:
    if not corrections:
        return (Outcome(Meaning.REOPENED, before),)
    return (Outcome(Meaning.CORRECTION, msgspec.structs.replace(before, voided=True)),)


def _is_repeated(before: Round | Outcome, after: Round | Outcome) -> bool:
    """Whether a row that was no round is none for the same reason."""
    if isinstance(before, Round) or isinstance(after, Round):
        return False
    return before.meaning is after.meaning and before.reason == after.reason
