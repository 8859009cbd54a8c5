"""Know which rounds of a recording the log holds already, however long ago and behind however many others.

Owns how a recording is named in the log, and what is kept there of when it was first begun. Without that, a recording
that is begun again would be stored twice where it lies beyond the log's duplicate window and tail.
"""

import hashlib
from contextlib import suppress
from typing import Any, Final

import structlog

from backends.contract import Kept, Places, PlaceTaken, SourceError
from backends.file.offset import Place
from backends.file.recording.sources import Recording

log = structlog.get_logger()

_HEAD_BYTES: Final = 1 << 10
"""Names a recording by its beginning, so that it keeps its name when it grows, is moved, or gets files after it."""


class PlayedBefore:
    """What the log remembers of one recording."""

    def __init__(self, places: Places[Any], first: Recording, *, writes_places: bool) -> None:
        """Name the recording that begins with the file `first`; with `writes_places`, its rounds carry their places.

        Raises:
            SourceError: The file cannot be read.
        """
        try:
            with first.path.open("rb") as file:
                head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
        except OSError as error:
            raise SourceError(f"recording '{first.path}' cannot be read: {error.strerror or error}") from error
        self._path = first.path
        self._places = places
        self._source = f"file-{head[:16]}"
        self._prefix = f"{self._source}:".encode() if writes_places else None

    def place(self, position: Place) -> bytes | None:
        """Write a place as a round carries it: how many were played up to it."""
        return None if self._prefix is None else b"%b%d" % (self._prefix, position.played)

    async def recall(self, start: Place) -> None:
        """Learn which of the rounds from `start` on are in the log; the publisher leaves them out."""
        began, now = await self._note_beginning()
        # A log that has not grown since holds none of it: the first run came to nothing.
        if began is not None and now is not None and now.last > began.last and start.played == 0:
            log.warning(
                "recording_played_before",
                recording=self._path.name,
                hint="rounds of it that the log holds are left out; with state_file a run goes on where one stopped",
            )
        await self._places.recall(self._source, lambda place: _played(place) > start.played, since=began)

    async def _note_beginning(self) -> tuple[Kept | None, Kept | None]:
        """Note in the log that the recording is begun; return when that was done first in this log, and now.

        None in place of the first: that is now. None in place of both: the log keeps no such notes.
        """
        first = _first(await self._places.kept(self._source))
        with suppress(PlaceTaken):  # another process plays it too: it has noted the same
            await self._places.keep(self._source, "0", "" if first is None else f"{first.epoch}:{first.last}")
        now = await self._places.kept(self._source)
        is_of_this_log = first is not None and now is not None and first.epoch == now.epoch
        return first if is_of_this_log else None, now


def _first(kept: Kept | None) -> Kept | None:
    """Return what was kept when the recording was begun for the first time in the log that it was last begun in."""
    if kept is None:
        return None
    epoch, _, last = kept.note.partition(":")
    return kept._replace(last=int(last)) if epoch == kept.epoch and last.isdigit() else kept


def _played(place: str) -> int:
    return int(place) if place.isdigit() else 0
