"""Know which rounds of a recording the log holds already, however long ago and behind however many others.

Owns how a recording is named in the log, and what is kept there of when it was first begun. Without that, a recording
that is begun again would be stored twice where it lies beyond the log's duplicate window and tail.
"""

import hashlib
from contextlib import suppress
from typing import Any, Final

import structlog

from backends.contract import KeptOffset, OffsetTaken, SourceError, SourceOffsets
from backends.file.offset import FileOffset
from backends.file.recording.sources import Recording

log = structlog.get_logger()

_HEAD_BYTES: Final = 1 << 10
"""Names a recording by its beginning, so that it keeps its name when it grows, is moved, or gets files after it."""


class StoredBefore:
    """What the log remembers of one recording."""

    def __init__(self, offsets: SourceOffsets[Any], first: Recording, *, writes_places: bool) -> None:
        """Name the recording that begins with the file `first`; with `writes_places`, its rounds carry their offsets.

        Raises:
            SourceError: The file cannot be read.
        """
        try:
            with first.path.open("rb") as file:
                head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
        except OSError as error:
            raise SourceError(f"recording '{first.path}' cannot be read: {error.strerror or error}") from error
        self._path = first.path
        self._offsets = offsets
        self._source = f"file-{head[:16]}"
        self._prefix = f"{self._source}:".encode() if writes_places else None

    def offset_text(self, offset: FileOffset) -> bytes | None:
        """Write an offset as a round carries it: how many were played up to it."""
        return None if self._prefix is None else b"%b%d" % (self._prefix, offset.played)

    async def recall(self, start: FileOffset) -> None:
        """Learn which of the rounds from `start` on are in the log; the publisher leaves them out."""
        began, now = await self._note_beginning()
        # A log that has not grown since holds none of it: the first run came to nothing.
        if began is not None and now is not None and now.last > began.last and start.played == 0:
            log.warning(
                "recording_played_before",
                recording=self._path.name,
                hint="rounds of it that the log holds are left out; with state_file a run goes on where one stopped",
            )
        await self._offsets.recall(self._source, lambda offset: _played(offset) > start.played, since=began)

    async def _note_beginning(self) -> tuple[KeptOffset | None, KeptOffset | None]:
        """Note in the log that the recording is begun; return when that was done first in this log, and now.

        None in offset of the first: that is now. None in offset of both: the log keeps no such notes.
        """
        first = _first(await self._offsets.kept(self._source))
        with suppress(OffsetTaken):  # another process plays it too: it has noted the same
            await self._offsets.keep(self._source, "0", "" if first is None else f"{first.epoch}:{first.last}")
        now = await self._offsets.kept(self._source)
        is_of_this_log = first is not None and now is not None and first.epoch == now.epoch
        return first if is_of_this_log else None, now


def _first(kept: KeptOffset | None) -> KeptOffset | None:
    """Return what was kept when the recording was begun for the first time in the log that it was last begun in."""
    if kept is None:
        return None
    epoch, _, last = kept.note.partition(":")
    return kept._replace(last=int(last)) if epoch == kept.epoch and last.isdigit() else kept


def _played(offset: str) -> int:
    return int(offset) if offset.isdigit() else 0
