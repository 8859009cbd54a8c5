"""What the log lacks of a row that is in the table: its round, a correction, or that it is taken back.

For a backfill, which sees only what a row is now, and compares it with what the log says of the round last. A row that
was deleted is not seen.
"""

from typing import Any, TypeVar

import msgspec

from backends.contract import Captured, Rejected
from backends.postgres.mapping.table_mapper import RowState, TableMapper, item_of
from backends.publish.corrections.revision_numbers import VOIDED, content_digest
from backends.publish.stored_ids import KnownRounds
from rounds import InvalidRound

P = TypeVar("P")


async def missing_change(
    row: Any, mapper: TableMapper, known: KnownRounds, offset: P, *, corrections: bool, known_to: int
) -> Captured[P] | Rejected[P] | None:
    """Return the item to publish for a row; None: the log has it, or the row is no round.

    Args:
        row: A row with ``row_values`` and ``committed_ms``, as `backends.postgres.row_bytes` reads it.
        mapper: That of the table.
        known: What the log holds; with contents if `corrections`.
        offset: The offset of the row.
        corrections: Whether changes of rounds that the log has are published too. Only where a round has one row: in
            a table of events, one that is not finished says nothing of another that is.
        known_to: The newest entry of the log before the row was read. A later one of its round may be newer.

    Raises:
        LogUnavailable: The log cannot be read.
    """
    values = row["row_values"]
    if fault := row.get("fault"):
        return mapper.reject(values, fault, offset)
    try:
        state = mapper.state(values)
    except InvalidRound as error:
        return mapper.reject(values, str(error), offset)
    if state is not RowState.FINISHED:
        return await _taken_back(row, mapper, known, offset, known_to) if corrections else None
    item = item_of(row, mapper, offset)
    if isinstance(item, Rejected):
        return item
    round_ = item.round
    if not corrections:
        return None if round_ in known else item
    content = known.content(round_.game_slug, round_.round_id)
    if content is None:
        return item
    if content == content_digest(round_) or known.sequence(round_.game_slug, round_.round_id) > known_to:
        return None
    return item._replace(is_correction=True)


async def _taken_back(
    row: Any, mapper: TableMapper, known: KnownRounds, offset: P, known_to: int
) -> Captured[P] | None:
    """Return that a round is taken back, if the log has it as finished."""
    try:
        key = mapper.round_key(row["row_values"])
    except InvalidRound:
        return None  # of a row that is no round, nothing is demanded
    if known.content(*key) in (None, VOIDED) or known.sequence(*key) > known_to:
        return None
    newest = await known.newest_entry(*key)
    if newest is None:
        return None
    changed_at = row["committed_ms"] or newest.timestamp
    return Captured(msgspec.structs.replace(newest, revision=1, voided=True, timestamp=changed_at), offset, True)
