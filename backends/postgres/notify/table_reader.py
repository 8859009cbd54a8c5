"""Read one table: what is asked for in each turn, what its rows are, and what is kept of it on the server.

Owns the turn of one table. Which rows are new is decided in `frontier`, which are asked for again in `unfinished`, and
up to where everything is stored in `table_offset`. The loop over all tables is in `postgres_notify`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from backends.contract import Captured, Rejected, SourceError
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.row_changes import Meaning, Outcome
from backends.postgres.mapping.table_mapper import RowState
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.notify.frontier import MAX_ID, Span
from backends.postgres.notify.notify_offsets import NotifyOffsets
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.notify.table_identity import Doubt, NewRows, Sample, TableLook, doubt_of, floor_of
from backends.postgres.notify.table_offset import Flow, NotifyOffset, TableOffset
from backends.postgres.notify.table_queries import TableQueries
from backends.postgres.notify.unfinished import GivenUp
from rounds import Round

log = structlog.get_logger()

_LOOK_BACK_S: Final = 30.0
_LOOK_S: Final = 1.0
"""How often the identity of a table is looked at."""
_GIVEN_UP_S: Final = 60.0
"""The shortest time between two log lines about rows that were given up."""
_HELD_BACK: Final = "a transaction that has inserted rows stays open; see pg_stat_activity for the oldest xact_start"
_NOT_REMEMBERED: Final = (
    "the row is not finished, and will not be read again: run stream-relay backend setup, so that it is remembered"
)
_INSERTED_ONCE: Final = "the row is not finished, and the option finished_by says that rows are finished by INSERT"

_ITEMS: Final = frozenset({Meaning.ROUND, Meaning.CORRECTION, Meaning.REJECTED})
"""What becomes an item."""

Item = Captured[NotifyOffset] | Rejected[NotifyOffset]


class Found(msgspec.Struct, gc=False):  # one for each round
    """A row that becomes an item."""

    reader: "TableReader"
    number: int
    """Its id."""
    committed: int
    """When it was committed, for the order of rows of one turn; comparable within it only."""
    values: Row
    made: Round | Outcome


class _Scan(NamedTuple):
    rows: Sequence[Any]
    limit: int
    looked_back: bool
    present: set[int] | None
    swept: Sequence[int]


class TableReader:
    """The state of one table in this process, over any number of connections."""

    def __init__(self, options: NotifyOptions, table: TableOptions, index: int, flow: Flow) -> None:
        self.table = table
        self.index = index
        self.log = log.bind(table=table.source, database=options.shown_dsn)
        self._options = options
        self._flow = flow
        self._look_back_at = self._look_at = self._sweep_at = self._given_up_at = 0.0
        self._given_up: GivenUp | None = None
        self._is_held_back = False
        self._top_then = 0  # the newest id at the time of `look`
        self._floor: int | None = None  # the id after which reading began again; None: it did not
        self._last: Found | None = None  # the last row that was yielded with a round
        self._keeping = asyncio.Lock()
        """The offset is either stored or set back."""
        self.reset()

    def reset(self) -> None:
        """Forget everything that was read; the next start is at the stored offset."""
        options = self._options
        self.offset = TableOffset(
            self._flow, index=self.index, lookback_ids=options.lookback_ids, unfinished_rows=options.unfinished_rows
        )
        self.look: TableLook | None = None
        """The newest look at the table; stored with the offset."""

    @property
    def has_moved(self) -> bool:
        """Whether there is something to store on the server."""
        return self.offset.safe > self.offset.kept or self.offset.unfinished.has_changes

    # --- beginning ----------------------------------------------------------------------------------------------

    async def make_offset(self, session: NotifySession, queries: TableQueries) -> None:
        """Store the offset of a first start, unless one is stored."""
        source, options = self.table.source, self._options
        if await session.offset(source) is not None:
            return
        oldest, newest = await queries.extent()
        # Sequences start at 1; a table may have lower ids.
        beginning = 0 if oldest is None else min(0, oldest - 1)
        if options.start == "beginning":
            await session.begin(source, beginning)
            return
        if queries.is_updated and newest is not None:
            await session.add_unfinished(source, await queries.unfinished(newest, options.unfinished_rows))
        # Ids below the newest may be committed later, so begin lower, and skip the rows that exist already.
        if await session.begin(source, max(beginning, (newest or 0) - options.lookback_ids)):
            self.offset.skip_existing(newest)

    async def begin(self, session: NotifySession, queries: TableQueries, offsets: NotifyOffsets | None) -> None:
        """Determine where to start: after what this process has read, or at the stored offset.

        Raises:
            SourceError: The stored offset was deleted while ingest runs.
        """
        source, options, offset = self.table.source, self._options, self.offset
        stored = await session.offset(source)
        if stored is None:
            raise SourceError(
                f"our offset in stream_relay.positions on {options.shown_dsn} was deleted; start ingest again"
            )
        lowest, safe, look = stored
        if offset.is_behind(safe):
            if offset.is_begun and safe < offset.kept:
                self.log.warning("source_went_back", kept=offset.kept, stored=safe, reason="the database was restored")
            if offsets is not None:
                is_first = options.start == "now" and lowest == safe
                begins = await offsets.begin(session, queries, safe, is_first=is_first)
                if begins < safe:
                    safe = lowest = begins
                    offset.skip_existing(None)
            offset.begin(safe, lowest=lowest, unfinished=await session.unfinished(source))
            self.look, self._last = TableLook.parse(look), None
            self._top_then, self._floor = safe, None
        offset.kept = safe
        self._look_back_at = 0.0
        offset.frontier.forget_writers()
        await self.look_at(queries, session, now=True)

    # --- scanning -----------------------------------------------------------------------------------------------

    async def scan(self, queries: TableQueries, limit: int) -> _Scan:
        """Query new rows, and rows that were not finished. Changes nothing but what is asked for next."""
        now, frontier, unfinished = asyncio.get_running_loop().time(), self.offset.frontier, self.offset.unfinished
        look_back = now >= self._look_back_at
        asked = swept = unfinished.asked()
        present = None
        if now >= self._sweep_at and len(unfinished):
            self._sweep_at = now + self._options.poll_s
            swept = unfinished.sweep() + asked
            present = await queries.present(swept)
            asked = sorted(present)
        spans = frontier.spans(look_back=look_back, new=self._may_advance())
        return _Scan(await queries.scan(spans, asked, limit), limit, look_back, present, swept)

    def take(self, scan: _Scan, queries: TableQueries) -> tuple[list[Found], bool]:
        """Record a scan; return the rows that become items, and whether there may be more at once."""
        offset = self.offset
        new_rows = [row for row in scan.rows if not queries.is_updated or not row["was_known"]]
        is_cut = len(new_rows) == scan.limit
        news = offset.record_scan([row["row_offset"] for row in new_rows], is_cut=is_cut)
        if scan.looked_back and not is_cut:
            self._look_back_at = asyncio.get_running_loop().time() + _LOOK_BACK_S
        found: list[Found] = []
        unfinished: list[int] = []
        done: set[int] = set()
        asked = len(offset.unfinished)
        for row in scan.rows:
            number = row["row_offset"]
            if number in done or not (number in news or (asked and number in offset.unfinished)):
                continue
            values = row["row_values"]
            if fault := row.get("fault"):
                made: Round | Sequence[Outcome] = (Outcome(Meaning.REJECTED, None, values, fault),)
            else:
                made = queries.outcomes_of(values, row["committed_ms"])
            if isinstance(made, Round):
                found.append(Found(self, number, row["commit_order"], values, made))
            elif (outcomes := self._read_now(made, values, queries)) is None:
                unfinished.append(number)
                continue
            elif not outcomes:
                continue
            else:
                found += [Found(self, number, row["commit_order"], values, outcome) for outcome in outcomes]
            if asked:
                done.add(number)
        if scan.present is not None:
            offset.unfinished.forget(set(scan.swept) - scan.present - done)
        self._remember([number for number in unfinished if number not in offset.unfinished])
        return found, is_cut

    def item_of(self, found: Found, offset: NotifyOffset, queries: TableQueries) -> Item:
        """Make the item of a row with its offset."""
        made = found.made
        if isinstance(made, Round):
            self._last = found
            return Captured(made, offset)
        if made.round is None:
            return queries.mapper.reject(found.values, made.reason, offset)
        self._last = found
        return Captured(made.round, offset, made.meaning is Meaning.CORRECTION)

    async def close_holes(self, queries: TableQueries) -> bool:
        """Ask which transactions may fill holes; return whether the next scan can close some."""
        frontier = self.offset.frontier
        return frontier.has_holes and frontier.update_writers(await queries.writers())

    def _may_advance(self) -> bool:
        frontier = self.offset.frontier
        may = frontier.ahead <= self._options.ahead_rows
        if self._is_held_back == may:
            self._is_held_back = not may
            if not may:
                self.log.warning("reading_held_back", safe=frontier.safe, newest=frontier.top, reason=_HELD_BACK)
        return may

    def _read_now(self, made: Sequence[Outcome], values: Row, queries: TableQueries) -> list[Outcome] | None:
        """Return what becomes an item of a row that is no plain round; None: the row is not finished."""
        items = []
        for outcome in made:
            if outcome.meaning is Meaning.UNFINISHED or (
                outcome.meaning is Meaning.OTHER and queries.mapper.state(values) is RowState.VOIDED
            ):
                if queries.is_updated:
                    return None
                reason = _INSERTED_ONCE if self.table.finished_by == "insert" else _NOT_REMEMBERED
                outcome = Outcome(Meaning.REJECTED, None, values, reason)
            if outcome.meaning in _ITEMS:
                items.append(outcome)
        return items

    def _remember(self, ids: list[int]) -> None:
        given_up = self.offset.unfinished.remember(ids)
        if given_up is not None:
            before = self._given_up or given_up._replace(rows=0)
            self._given_up = GivenUp(
                before.rows + given_up.rows,
                min(before.lowest, given_up.lowest),
                max(before.highest, given_up.highest),
            )
        now = asyncio.get_running_loop().time()
        if self._given_up is not None and now >= self._given_up_at:
            self._given_up_at = now + _GIVEN_UP_S
            rows, lowest, highest = self._given_up
            self._given_up = None
            self.log.warning(
                "rows_given_up",
                rows=rows,
                lowest=lowest,
                highest=highest,
                reason=f"more than unfinished_rows = {self._options.unfinished_rows} rows are not finished",
                run=f"stream-relay backend backfill --from-id {lowest} --to-id {highest}, if they are finished later",
            )

    # --- whether ids have begun again ---------------------------------------------------------------------------

    async def look_at(self, queries: TableQueries, session: NotifySession, *, now: bool = False) -> None:
        """Look at the table, at most once a second; begin again below if its ids have begun again.

        Raises:
            SourceError: The table is gone, or row level security hides its rows.
        """
        time_s = asyncio.get_running_loop().time()
        is_due = now or time_s >= self._look_at
        # The first row that was read is what the next look recognises the table by.
        if not is_due and (self._last is None or self.look is None or self.look.sample is not None):
            return
        self._look_at = time_s + _LOOK_S
        await session.check_row_security(self.table)
        look, newest = await queries.look()
        before, top = self.look, self.offset.frontier.top
        doubt = doubt_of(before, look, newest, top)
        if doubt is Doubt.OBJECTS and await self._has_sample(queries):
            doubt = Doubt.NONE
        if doubt is not Doubt.NONE:
            await self._begin_again(queries, session, doubt, look, newest)
        elif before is not None:
            await self._report_attached(queries, before, look)
        if doubt is not Doubt.SEQUENCE and before is not None and before.is_capped:
            cap = await self._cap(queries, look)
            has_moved = doubt is Doubt.NONE and cap != self.offset.frontier.cap
            if has_moved and await self._is_replaced(queries, before):
                doubt = Doubt.SEQUENCE
                await self._begin_again(queries, session, doubt, look, newest)
            else:
                self.offset.frontier.cap = cap
        frontier = self.offset.frontier
        sample = self._sample() or (None if before is None or doubt is not Doubt.NONE else before.sample)
        self.look = msgspec.structs.replace(look, is_capped=frontier.cap < MAX_ID, sample=sample)
        self._top_then = frontier.top

    async def _has_sample(self, queries: TableQueries) -> bool:
        """Whether the table still has a row that was read before the last look: then it was copied or rewritten."""
        sample = self.look.sample if self.look is not None else None
        if sample is None:
            return False
        for row in await queries.scan([Span(sample.number, sample.number)], [], 1):
            if not row.get("fault"):
                found = [(one.game_slug, one.round_id) for one in queries.rounds_of(row["row_values"])]
                return (sample.game, sample.round_id) in found
        return False

    async def _begin_again(
        self, queries: TableQueries, session: NotifySession, doubt: Doubt, look: TableLook, newest: int | None
    ) -> None:
        top, before = self.offset.frontier.top, self.look
        end = look.last_value if doubt is Doubt.SEQUENCE else None
        rows = NewRows(None, newest)
        if before is not None:
            rows = await queries.newer(before.oldest_xid, MAX_ID if end is None else end)
        self._floor = floor = floor_of(rows, top)
        level = self.log.info if doubt is Doubt.NEWEST and rows.lowest_new is None else self.log.warning
        level("ids_began_again", reason=doubt.value, newest_before=top, newest=newest, after=floor)
        async with self._keeping:
            await session.rewind(self.table.source, floor)
            self.offset.begin(floor, lowest=floor, unfinished=await session.unfinished(self.table.source))
            self.offset.skip_existing(None)
        if rows.lowest_above is not None:
            self.offset.frontier.cap = rows.lowest_above - 1
        self._last = None
        self._look_back_at = 0.0

    async def _cap(self, queries: TableQueries, look: TableLook) -> int:
        """Return the id up to which to read: below the lowest row above the last value of the sequence, which has an id
        of before."""
        above = None if look.last_value is None else max(look.last_value, self.offset.frontier.top)
        lowest = None if above is None else await queries.next_id(above)
        return MAX_ID if lowest is None else lowest - 1

    async def _is_replaced(self, queries: TableQueries, before: TableLook) -> bool:
        """Whether new rows have ids of old rows that were there when the ids began again: the transaction that has
        deleted these was open then."""
        if self._floor is None:
            return False
        return (await queries.newer(before.oldest_xid, self._floor)).lowest_new is not None

    async def _report_attached(self, queries: TableQueries, before: TableLook, look: TableLook) -> None:
        """Log which rows came with partitions and children that were attached: no id of theirs is looked for.

        Ids that were read since the look before count too, except of rows that were inserted since then.
        """
        for child in sorted(set(look.children) - set(before.children)):
            rows = await queries.attached(child, self._top_then, self.offset.frontier.top, before.oldest_xid)
            if rows is not None:
                name, count, lowest, highest = rows
                self.log.warning(
                    "rows_attached",
                    child=name,
                    rows=count,
                    lowest=lowest,
                    highest=highest,
                    run=f"stream-relay backend backfill --from-id {lowest} --to-id {highest}, if these rounds are new",
                )

    # --- keeping ------------------------------------------------------------------------------------------------

    async def keep(self, session: NotifySession) -> bool:
        """Store the offset and the unfinished rows, if they have changed; return whether something was stored."""
        async with self._keeping:
            offset = self.offset
            if not offset.is_begun:
                return False
            safe, unfinished = offset.safe, offset.unfinished
            changes = unfinished.changes(safe)
            if safe <= offset.kept and not changes.added and not changes.removed:
                return False
            await session.keep(self.table.source, safe, offset.lowest, self._look_text(), changes)
            offset.kept = max(offset.kept, safe)
            unfinished.mark_stored(changes)
            return True

    def _look_text(self) -> str | None:
        """Write the newest look, with a row to recognise the table by: one from before the look if there is one."""
        if self.look is None:
            return None
        return msgspec.structs.replace(self.look, sample=self.look.sample or self._sample()).to_text()

    def _sample(self) -> Sample | None:
        if self._last is None:
            return None
        made = self._last.made
        round_ = made if isinstance(made, Round) else made.round
        return None if round_ is None else Sample(self._last.number, round_.game_slug, round_.round_id)
