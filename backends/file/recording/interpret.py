"""Turn the lines of one file into items with offsets. Pure: lines in, batches out.

Owns which lines become rounds: those that parse, whose game and type are in the catalogue, and whose game and time are
selected.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from backends.contract import Captured, Rejected
from backends.file.file_offset import FileOffset
from backends.file.recording.formats import Parser
from backends.file.recording.lines import RAW_BYTES, TooLong
from rounds import Catalogue, InvalidRound, Round, UnknownGame

Item = Captured[FileOffset] | Rejected[FileOffset]

_BATCH: Final = 1000
"""Maximum number of rounds parsed without yielding to the event loop; takes some 3 ms."""


@dataclass(frozen=True)
class RecordingSelection:
    """Which rounds of a recording are played."""

    catalogue: Catalogue
    games: frozenset[str]  # empty: all of the catalogue
    span_ms: tuple[float, float] = (float("-inf"), float("inf"))  # from, and up to but not including, Unix milliseconds
    max_line_bytes: int = 1 << 20


class Interpreter:
    """Interprets the lines of one file. Lines up to the offset `start` are only counted."""

    def __init__(
        self,
        name: str,
        parser: Parser,
        selection: RecordingSelection,
        start: FileOffset,
        on_malformed: Callable[[str, int, str, bytes], bool],
    ) -> None:
        """Take `on_malformed`, which gets file, line number, reason and raw line, and may raise.

        When it returns True, the line becomes a `Rejected` item; when False, the line is skipped.
        """
        self.offset = start
        self._name = name
        self._parser = parser
        self._selection = selection
        games = selection.catalogue.games
        self._types = {slug: games[slug].type for slug in selection.games or games}
        self._on_malformed = on_malformed
        self._line = 0  # number of lines seen

    def items(self, lines: Sequence[bytes | TooLong]) -> Iterator[list[Item]]:
        """Yield the items of the file's next lines, in batches. Items before a fatal line are yielded before the error.

        Raises:
            InvalidHeader: Nothing in this file can be read.
        """
        done = self.offset.line
        batch: list[Item] = []
        for line in lines:
            self._line += 1
            if self._line <= done:
                self._skip(line)
                continue
            try:
                round_ = self._read(line)
            except (InvalidRound, UnknownGame) as error:
                if batch:
                    yield batch
                    batch = []
                rejected = self._reject(line, str(error))
                if rejected is not None:
                    yield [rejected]
                continue
            if round_ is not None:
                batch.append(Captured(round_, self._advance(round_.timestamp)))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def refuse(self, line: TooLong) -> None:
        """Report a line that is too long although its end has not been read yet."""
        self._on_malformed(self._name, self._line + 1, self._too_long(line), line.head)

    def _read(self, line: bytes | TooLong) -> Round | None:
        """Return the round of a line; None when it has none, or one that is not selected."""
        if isinstance(line, TooLong):
            raise InvalidRound(self._too_long(line))
        round_ = self._parser.parse(line)
        if round_ is None:
            return None
        game_type = self._types.get(round_.game_slug)
        if game_type is None:
            self._selection.catalogue.game(round_.game_slug)  # raises UnknownGame, unless it is only not selected
            return None
        if round_.game_type != game_type:  # clients of a type could not read its extras
            raise InvalidRound(
                f"game_type {round_.game_type[:64]!r} is not that of {round_.game_slug!r} in the catalogue, "
                f"{game_type!r}; RELAY_GAMES_FILE can change the catalogue"
            )
        low_ms, high_ms = self._selection.span_ms
        return round_ if low_ms <= round_.timestamp < high_ms else None

    def _advance(self, time_ms: int) -> FileOffset:
        pass_, file, _, played, newest_ms = self.offset
        if pass_.first_ms is None:
            pass_.first_ms = time_ms
        self.offset = FileOffset(pass_, file, self._line, played + 1, max(newest_ms, time_ms))
        return self.offset

    def _reject(self, line: bytes | TooLong, reason: str) -> Rejected[FileOffset] | None:
        raw = line.head if isinstance(line, TooLong) else line[:RAW_BYTES]
        if not self._on_malformed(self._name, self._line, reason, raw):
            return None
        self.offset = self.offset._replace(line=self._line)
        return Rejected(f"{self._name}:{self._line}", reason, raw, self.offset)

    def _skip(self, line: bytes | TooLong) -> None:
        if not isinstance(line, TooLong):
            self._parser.skip(line)

    def _too_long(self, line: TooLong) -> str:
        return f"the line is longer than {self._selection.max_line_bytes} bytes (max_line_bytes)"
