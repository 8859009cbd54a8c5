"""Read rounds from logical messages: the content is a JSON object, and its members are the columns of a row.

Pure. ``SELECT pg_logical_emit_message(true, 'stream_relay', '{"round_id": 7, ...}')`` writes a round within a
transaction, without a table. Why: docs/adr/0038-logical-messages-on-request.md
"""

from collections.abc import Sequence
from typing import Final

from backends.contract import Rejected
from backends.postgres.encodings import UTF_8, why_not_text
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.game_slugs import GameSlugs
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.row_changes import Meaning, Outcome, changes_of
from backends.postgres.mapping.table_mapper import P, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.value_path import Place, ValuePath
from backends.postgres.replication.protocol.pgoutput import LogicalMessage
from backends.postgres.replication.rows.row_reader import Counters
from rounds import Catalogue

MESSAGE_BYTES: Final = 1 << 20
"""Limit of one message: a round is some hundred bytes."""

_JSONB: Final = 3802
_COLUMN: Final = "message"


class MessageMapper(TableMapper):
    """A mapper whose paths begin at the members of a document."""

    def __init__(self, prefix: str, table: TableOptions, catalogue: Catalogue, games: GameSlugs | None = None) -> None:
        self._prefix = prefix
        given = table if table.game_type or table.game_type_column else _with_game_type(table)
        super().__init__(given, catalogue, [Column(_COLUMN, _JSONB)], games=games)

    def reject(self, row: Row, reason: str, offset: P) -> Rejected[P]:
        return super().reject(row, reason, offset)._replace(key=f"message:{self._prefix}")

    def _place(self, path: ValuePath, option: str) -> Place:
        return Place(_COLUMN, path.parts)


class MessageReader:
    """Reads the messages with one prefix, `prefix` as `LogicalMessage` has it."""

    def __init__(self, prefix: str, mapper: TableMapper, counters: Counters, *, codec: str) -> None:
        # `decode` does not know the encoding of the database.
        self.prefix = prefix.encode(codec, "backslashreplace").decode(UTF_8, "surrogateescape")
        self.mapper = mapper
        self._counters = counters
        self._codec = codec

    def written(self, message: LogicalMessage, timestamp_ms: int) -> Sequence[Outcome]:
        """Say what a message means; raise `UnknownGameKey` if the table of games has to be read again."""
        if message.size > MESSAGE_BYTES:
            return (self._rejected("", f"the message has {message.size} bytes; the limit is {MESSAGE_BYTES}"),)
        try:
            text = bytes(message.content).decode(self._codec)
        except UnicodeDecodeError as error:
            text = bytes(message.content).decode(self._codec, "backslashreplace")
            return (self._rejected(text, why_not_text(error, self._codec, what="message")),)
        if not message.transactional:
            why = "the message is not transactional, so it has no place among the commits"
            return (self._rejected(text, f"{why}; call pg_logical_emit_message(true, ...)"),)
        if not text.lstrip().startswith("{"):
            return (self._rejected(text, f"the message {text[:40]!r} is not a JSON object"),)
        outcomes = changes_of(self.mapper, None, [text], timestamp_ms, corrections=False)
        taken = [outcome for outcome in outcomes if outcome.meaning in (Meaning.ROUND, Meaning.REJECTED)]
        for outcome in outcomes:
            self._counters.unfinished += outcome.meaning is Meaning.UNFINISHED
            self._counters.other += outcome.meaning is Meaning.OTHER
        return taken

    def _rejected(self, text: str, reason: str) -> Outcome:
        return Outcome(Meaning.REJECTED, None, [text], reason)


def _with_game_type(table: TableOptions) -> TableOptions:
    """Read the type of the game from the member of that name, if there is one."""
    return table.model_copy(update={"game_type_column": "game_type"})
