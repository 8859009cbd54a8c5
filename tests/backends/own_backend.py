"""A backend of one's own, complete: rounds from a list. docs/backends.md shows this file, and the tests run it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from stream_relay import BackendContext, Captured, InvalidOptions, InvalidRound, Rejected, Round

Item = Captured[int] | Rejected[int]


class Lines:
    """Reads rounds as JSON, one a line, from the option ``text``. Its offset is the number of lines read."""

    def __init__(self, options: Mapping[str, object], context: BackendContext) -> None:
        match dict(options):
            case {"text": str(text), **rest} if not rest:
                self._lines = text.splitlines()
            case _:
                raise InvalidOptions(
                    f"options {sorted(options)} are not allowed; there is one, text, and it is a string"
                )
        self._catalogue = context.catalogue
        self.confirmed = 0  # a real source would keep this: in the database, in a file

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield  # connect before, disconnect after

    async def read(self) -> AsyncIterator[Sequence[Item]]:
        for offset in range(self.confirmed, len(self._lines)):
            yield [self._item(self._lines[offset], offset + 1)]

    def confirm(self, offset: int) -> None:
        self.confirmed = offset

    def _item(self, line: str, offset: int) -> Item:
        try:
            round_ = Round.parse(line)
            self._catalogue.game(round_.game_slug)
        except (InvalidRound, LookupError) as error:
            return Rejected(f"line {offset}", str(error), line.encode()[: 64 << 10], offset)
        return Captured(round_, offset)
