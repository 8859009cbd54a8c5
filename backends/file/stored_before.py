"""Find which rounds of a recording the log already holds, so that a replay from the start stores nothing twice.

Owns the name of a recording in the log, and the note in the log of when its first replay began. Without the note,
rounds older than the log's duplicate window and tail would be stored twice.
"""

import hashlib
from contextlib import suppress
from typing import Any, Final

import structlog

from backends.contract import KeptOffset, OffsetTaken, SourceError, SourceOffsets
from backends.file.file_offset import FileOffset
from backends.file.recording.sources import Recording

log = structlog.get_logger()

_HEAD_BYTES: Final = 1 << 10
"""The hash of these first bytes names a recording, so the name stays when the recording grows or is moved."""


class StoredBefore:
    """The rounds of one recording that the log holds."""

    def __init__(self, offsets: SourceOffsets[Any], first: Recording, *, writes_offsets: bool) -> None:
        """Name the recording whose first file is `first`. With `writes_offsets`, its rounds carry their offsets.

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
        self._prefix = f"{self._source}:".encode() if writes_offsets else None

    def offset_text(self, offset: FileOffset) -> bytes | None:
        """Write an offset as a round carries it: the number of rounds played up to it."""
        return None if self._prefix is None else b"%b%d" % (self._prefix, offset.played)

    async def recall(self, start: FileOffset) -> None:
        """Find which of the rounds after `start` are in the log; the publisher skips them."""
        began, now = await self._note_beginning()
        # When the log has not grown since the first run began, that run stored nothing.
        if began is not None and now is not None and now.last > began.last and start.played == 0:
            log.warning(
                "recording_played_before",
                recording=self._path.name,
                hint="rounds that the log already holds are skipped; with state_file a run resumes where it stopped",
            )
        await self._offsets.recall(self._source, lambda offset: _played(offset) > start.played, since=began)

    async def _note_beginning(self) -> tuple[KeptOffset | None, KeptOffset | None]:
        """Store a note that a replay begins; return the note of the first replay into this log, and the new one.

        The first is None when this is the first replay. Both are None when the log cannot store notes.
        """
        first = _first(await self._offsets.kept(self._source))
        with suppress(OffsetTaken):  # another process replays it too, and has stored the same note
            await self._offsets.keep(self._source, "0", "" if first is None else f"{first.epoch}:{first.last}")
        now = await self._offsets.kept(self._source)
        is_of_this_log = first is not None and now is not None and first.epoch == now.epoch
        return first if is_of_this_log else None, now


def _first(kept: KeptOffset | None) -> KeptOffset | None:
    """Return the note of the first replay into the log that the last replay went into."""
    if kept is None:
        return None
    epoch, _, last = kept.note.partition(":")
    return kept._replace(last=int(last)) if epoch == kept.epoch and last.isdigit() else kept


def _played(offset: str) -> int:
    return int(offset) if offset.isdigit() else 0
