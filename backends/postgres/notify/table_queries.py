"""The queries about one table of rounds, over the connection of the reader.

Owns which statement answers which question. Knows nothing of what is new: see `backends.postgres.notify.frontier`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from backends.contract import SourceError
from backends.postgres.database import Connection, ask
from backends.postgres.feed.feed_mapper import FeedMapper
from backends.postgres.game_tables import read_games
from backends.postgres.mapping.condition import Condition
from backends.postgres.mapping.game_slugs import GameSlugs, UnknownGameKey
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.row_changes import Outcome, round_of
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.notify.frontier import Span
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.table_identity import NewRows, TableLook
from backends.postgres.row_bytes import fetch_rows
from backends.postgres.statements import statement
from backends.postgres.table import agreed, scan_statement
from rounds import Round

_COLUMNS: Final = ("row_offset", "committed_ms", "commit_order")
"""The columns of a row besides its values, see sql/row_columns.sql."""

_PAGE_SEARCHED: Final = 10_000
_PAGES_SEARCHED: Final = 20
"""How many ids below the newest are searched for rounds of the log, in pages of the number above: some seconds."""


class TableQueries:
    """Asks about one table. Made for each connection; raises `ConnectionLost` and `SourceError` as `ask` does."""

    def __init__(
        self,
        options: NotifyOptions,
        table: TableOptions,
        mapper: TableMapper,
        reader: Connection,
        *,
        games: Sequence[GameSlugs],
        is_updated: bool,
    ) -> None:
        """Prepare the statements.

        Args:
            options: Those of the backend.
            table: The table.
            mapper: Makes its rows rounds; of the feed, a `FeedMapper`.
            reader: The connection.
            games: The games that `mapper` finds.
            is_updated: Whether rows are finished by UPDATE.
        """
        self.table = table
        self._games = [one for one in games if one.table.game_slug_table is not None]
        self.mapper = mapper
        self._feed_mapper = mapper if isinstance(mapper, FeedMapper) else None
        self.is_updated = is_updated
        self._options = options
        self._reader = reader
        self._names = {"schema": table.schema_name, "table": table.table_name, "order_column": table.order}
        self._scan_sql = self._scan_statement()

    async def scan(self, spans: Sequence[Span], asked: Sequence[int], limit: int) -> Sequence[Any]:
        """Read rows in one snapshot: within `spans` in ascending order, at most `limit`; and of the ids `asked` those
        that are finished, with ``was_known``."""
        lows, highs = [span.low for span in spans], [span.high for span in spans]
        more, columns = ((asked,), (*_COLUMNS, "was_known")) if self.is_updated else ((), _COLUMNS)
        rows = await fetch_rows(
            self._options,
            self._reader,
            self._scan_sql,
            lows,
            highs,
            limit,
            *more,
            columns=columns,
            timeout_s=self._timeout_s,
        )
        if self._games and self._needs_games(rows):
            await read_games(self._reader, self._options, self._games)
        return rows

    def outcomes_of(self, values: Row, committed_ms: int | None) -> Round | Sequence[Outcome]:
        """Say what follows from a row: mostly a round.

        If the server keeps no commit times, the round's timestamp is its ``finished_at``: the same at every reading.
        """
        if self._feed_mapper is not None:
            return self._feed_mapper.outcomes(values, committed_ms)
        made = round_of(self.mapper, values, committed_ms or 0)
        if not isinstance(made, Round):
            return (made,)
        if committed_ms is None:
            return msgspec.structs.replace(made, timestamp=max(0, int(made.finished.timestamp() * 1000)))
        return made

    def rounds_of(self, values: Row) -> list[Round]:
        """Return the rounds that follow from a row."""
        made = self.outcomes_of(values, 0)
        return [made] if isinstance(made, Round) else [one.round for one in made if one.round is not None]

    async def present(self, ids: Sequence[int]) -> set[int]:
        """Return which of the ids the table still has."""
        rows = await self._fetch("read_present", ids)
        return {row["id"] for row in rows}

    async def unfinished(self, up_to: int, limit: int) -> list[int]:
        """Return the ids of the newest rows that are not finished, at most `limit`."""
        sql = statement("find_unfinished", **self._names, is_finished=self._finished_sql())
        fetch = self._reader.fetch(sql, up_to, limit, timeout=self._timeout_s)
        return [row["row_offset"] for row in await ask(self._options, fetch)]

    async def writers(self) -> list[str]:
        """Return the ids of the transactions that may have uncommitted rows in the table."""
        return [row[0] for row in await self._fetch("read_writers", self.table.quoted_table)]

    async def extent(self) -> tuple[int | None, int | None]:
        """Return the oldest and the newest visible id; None in an empty table."""
        [row] = await self._fetch("read_extent")
        return row["oldest"], row["newest"]

    async def find(self, rounds: Mapping[str, int]) -> int | None:
        """Return the id of the newest row that is one of `rounds` (round ids by game); None: none was found."""
        if not self.mapper.has_plain_key:
            return await self._find_mapped(rounds)
        table = self.table
        sql = statement("find_rounds", **self._names, game_slug=table.game_slug_column, round_id=table.round_id_column)
        games, ids = list(rounds), [str(number) for number in rounds.values()]
        fetch = self._reader.fetchval(sql, games, ids, timeout=self._timeout_s)
        found: int | None = await ask(self._options, fetch)
        return found

    async def _find_mapped(self, rounds: Mapping[str, int]) -> int | None:
        """Map rows to find the rounds, from the newest down: SQL cannot read composed fields."""
        _, newest = await self.extent()
        high = newest or 0
        for _ in range(_PAGES_SEARCHED):
            low = high - _PAGE_SEARCHED + 1
            for row in reversed(await self.scan([Span(low, high)], [], _PAGE_SEARCHED)):
                if any(rounds.get(found.game_slug) == found.round_id for found in self.rounds_of(row["row_values"])):
                    return int(row["row_offset"])
            high = low - 1
        return None

    # --- what the table is like ---------------------------------------------------------------------------------

    async def look(self) -> tuple[TableLook, int | None]:
        """Look at the table, its sequence and its children; return that, and the newest visible id.

        A sequence shows its newest value, catalogs what the snapshot of the query shows. A query that began before the
        table or its sequence was replaced may so see the old object with the new value, or no table: it is asked again
        until two answers agree.

        Raises:
            SourceError: The table is gone.
        """
        look, newest = await agreed(self._look, on=lambda seen: seen[0] and seen[0].identity)
        if look is None:
            raise SourceError(
                f"table {self.table.quoted_table} is not there any more; restore it, or set the option 'table'"
            )
        return look, newest

    async def _look(self) -> tuple[TableLook | None, int | None]:
        rows = await self._fetch("read_identity", self.table.quoted_table, self.table.order)
        if not rows:
            return None, None
        [row] = rows
        _, newest = await self.extent()
        children = tuple(row["children"] or ())
        return TableLook(row["relation"], row["sequence"], row["last_value"], row["oldest_xid"], children), newest

    async def newer(self, xid: str, up_to: int) -> NewRows:
        """Return where the rows, up to id `up_to`, begin that are not older than transaction `xid`."""
        [row] = await self._fetch("read_newer", xid, up_to)
        return NewRows(row["lowest_new"], row["highest_old"], row["lowest_above"])

    async def next_id(self, above: int) -> int | None:
        """Return the lowest visible id above `above`."""
        [row] = await self._fetch("read_next_id", above)
        found: int | None = row[0]
        return found

    async def attached(self, child: int, then: int, top: int, xid: str) -> tuple[str, int, int, int] | None:
        """Describe the rows of a child that have ids up to `then`, or up to `top` and are older than transaction `xid`:
        its name, their number, lowest and highest id."""
        names = await self._fetch("read_name", child)
        if not names:
            return None
        name = {"schema": names[0]["schema_name"], "table": names[0]["table_name"]}
        sql = statement("read_attached", **{**self._names, **name})
        row: Any = await ask(self._options, self._reader.fetchrow(sql, then, top, xid, timeout=self._timeout_s))
        if not row["found"]:
            return None
        return f"{name['schema']}.{name['table']}", row["found"], row["lowest"], row["highest"]

    # --- inside -------------------------------------------------------------------------------------------------

    @property
    def _timeout_s(self) -> float:
        return self._options.answer_timeout_s

    async def _fetch(self, name: str, *arguments: object) -> list[Any]:
        sql = statement(name, **self._names)
        return list(await ask(self._options, self._reader.fetch(sql, *arguments, timeout=self._timeout_s)))

    def _needs_games(self, rows: Sequence[Any]) -> bool:
        """Whether a row has the key of a game that is not known yet."""
        values = [row["row_values"] for row in rows if not row.get("fault")]
        if self._feed_mapper is None:
            return self.mapper.needs_games(values)
        needed = False
        for row in values:
            try:
                self.outcomes_of(row, 0)
            except UnknownGameKey:
                needed = True  # the others too, so that one read is enough
        return needed

    def _scan_statement(self) -> str:
        if not self.is_updated:
            return scan_statement(self.mapper)
        # The condition of a JSON member raises where a text column holds no JSON: then the mapper decides.
        return statement(
            "scan_unfinished",
            **self._names,
            row_values=self.mapper.values_sql("t"),
            is_finished=self._finished_sql(),
        )

    def _finished_sql(self) -> str:
        """Write the condition of the rows that are rounds now."""
        texts = [self.table.finished_when, self.table.voided_when, self.table.rows_when]
        paths = [path for text in texts if text is not None for path in Condition.parse(text).paths]
        if any(len(path.parts) > 1 for path in paths) or "." in self.table.finished_at_column:
            return "TRUE"
        finished, voided, ours = (
            self.mapper.sql_of(option, "t") for option in ("finished_when", "voided_when", "rows_when")
        )
        return f"({finished}) AND NOT ({voided}) AND ({ours})"
