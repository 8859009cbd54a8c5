"""The feed as a table: its name, its columns, and how it is read. Pure."""

from typing import Final

from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.table_options import TableOptions

SCHEMA: Final = "stream_relay"
FEED: Final = f"{SCHEMA}.feed"

FEED_COLUMNS: Final = tuple(map(Column, ("seq", "source", "old", "new", "error", "written_at")))
FEED_TABLE: Final = TableOptions.model_validate(
    {
        "table": FEED,
        "round_id_column": "seq",
        "game_slug_column": "source",
        "finished_at_column": "written_at",
        "extras_columns": ["old", "new", "error"],
        "order_column": "seq",
        "finished_by": "insert",
    }
)
"""The options of a table that is only inserted into, so that both backends read the feed as they read any table."""
