"""Choose the tables of a database that hold rounds, and propose the options of each.

Owns what is read for that, and when the choice is the owner's. Reads only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backends.contract import SourceError
from backends.postgres.database import Connection
from backends.postgres.inspect.facts import Rows, TableFacts
from backends.postgres.inspect.game_roles import GameNames
from backends.postgres.inspect.look import look_at_tables, sample
from backends.postgres.inspect.propose import Proposal, propose_table
from backends.postgres.inspect.words import GAME, has_any
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement
from backends.postgres.table import KINDS
from rounds import Catalogue

ENOUGH: Final = 8
"""The score from which a table looks like one of rounds."""
_NEAR: Final = 5
"""Tables that score so much less than the best one are not proposed."""
_LITTLE: Final = 6
"""The score from which a table is named as one that was not taken."""
_SAMPLED: Final = 40
"""Most tables that a sample is read of."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The tables that are proposed."""

    chosen: tuple[Proposal, ...]
    others: tuple[Proposal, ...]
    """Tables that look a little like rounds, best first."""
    samples: Mapping[int, Rows | None]
    """The rows that were read, by the oid of the table."""
    is_ambiguous: bool = False
    """Whether the owner has to choose among `chosen`."""


async def choose_tables(
    connection: Connection,
    options: PostgresOptions,
    catalogue: Catalogue,
    wanted: Sequence[str],
    given: Mapping[str, object],
    examples: Rows = (),
) -> Choice:
    """Look at a database, and propose the tables of rounds with their options.

    Args:
        wanted: The tables that the owner named, ``schema.table`` or ``table``; empty: find them.
        given: Options that the owner has set.
        examples: Rows for a table that has none now, such as an outbox.

    Raises:
        SourceError: A table that was named does not exist, cannot be captured, or cannot be read.
    """
    tables = await look_at_tables(connection, options)
    named = [_named(tables, name) for name in wanted]
    for table in named:
        await _refuse(connection, table)
    names = GameNames(catalogue)
    games = {table.oid: table for table in _of_games(tables)}
    found = [table for table in tables if table.is_capturable and table.persistence == "p" and not table.is_child]
    candidates = named or found
    rough = {table.oid: propose_table(table, None, games, {}, names, given) for table in candidates}
    best = sorted(candidates, key=lambda table: -rough[table.oid].score)[: max(_SAMPLED, len(named))]
    samples: dict[int, Rows | None] = {}
    for table in [*best, *games.values()]:
        if table.oid not in samples:
            samples[table.oid] = await sample(connection, options, table) or _fitting(examples, table)
    made = [propose_table(table, samples[table.oid], games, samples, names, given) for table in best]
    if named:
        order = {table.oid: place for place, table in enumerate(named)}
        made.sort(key=lambda proposal: order[proposal.table.oid])
        return Choice(tuple(made), (), samples)
    return _choice(sorted(made, key=lambda proposal: (-proposal.score, proposal.table.full_name)), samples)


def _fitting(examples: Rows, table: TableFacts) -> Rows | None:
    """Return the examples that are rows of this table; None: there are none."""
    return [row for row in examples if row.keys() <= table.by_name.keys()] or None


def _choice(made: Sequence[Proposal], samples: Mapping[int, Rows | None]) -> Choice:
    enough = [proposal for proposal in made if proposal.score >= ENOUGH]
    if not enough:
        return Choice((), tuple(made[:5]), samples)
    chosen = [proposal for proposal in enough if proposal.score >= enough[0].score - _NEAR]
    others = [proposal for proposal in made if proposal not in chosen and proposal.score >= _LITTLE][:8]
    games = [proposal.game for proposal in chosen if proposal.game is not None]
    is_ambiguous = sum(proposal.game is None for proposal in chosen) > 1 or len(set(games)) < len(games)
    return Choice(tuple(chosen), tuple(others), samples, is_ambiguous)


def _named(tables: Sequence[TableFacts], name: str) -> TableFacts:
    found = [table for table in tables if name == table.full_name or (table.schema, table.name) == ("public", name)]
    if not found:
        found = [table for table in tables if table.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(table.full_name for table in found)
        raise SourceError(f"--table {name} is not clear: there are {listed}; give one of them")
    near = [table.full_name for table in tables if name.partition(".")[2].lower() or name.lower() in table.name.lower()]
    there_are = ", ".join(near[:20] or [table.full_name for table in tables[:20]]) or "no tables that our role can see"
    raise SourceError(f"there is no table {name}; there are {there_are}")


async def _refuse(connection: Connection, table: TableFacts) -> None:
    if not table.is_capturable:
        below = await _tables_below(connection, table)
        reads = f"; name the table that it reads: {', '.join(below)}" if below else ""
        raise SourceError(f"{table.full_name} is {KINDS[table.kind]}, which has no rows of its own to capture{reads}")
    if table.persistence != "p":
        raise SourceError(f"table {table.full_name} is unlogged; run: ALTER TABLE {table.quoted} SET LOGGED;")


async def _tables_below(connection: Connection, view: TableFacts) -> list[str]:
    rows = await connection.fetch(statement("tables_of_view"), view.oid)
    return [row["name"] for row in rows]


def _of_games(tables: Sequence[TableFacts]) -> list[TableFacts]:
    """List the tables that may be tables of games: those that others refer to, and those with such a name."""
    referred = {key.target_oid for table in tables for key in table.foreign_keys}
    readable = [table for table in tables if table.may_read and table.kind in ("r", "p", "m")]
    return [table for table in readable if table.oid in referred or has_any(table.name, GAME)][:60]
