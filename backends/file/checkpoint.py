"""Store the confirmed offset of a replay in a state file, and load it at the next start.

Owns the form of the file, and the check that it belongs to the recording: the offset of another recording would skip
rounds that were never played.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final, Literal, NamedTuple

import msgspec

from backends.contract import SourceError
from backends.file.file_offset import FileOffset, Pass
from backends.file.own_files import replacing
from backends.file.recording.sources import Recording
from rounds.round import Int63

_EVERY_S: Final = 1.0
"""Minimum time between two writes. After a crash, the publisher finds rounds that are read again in the log."""
_HEAD_BYTES: Final = 64 << 10


class _State(msgspec.Struct, forbid_unknown_fields=True):
    """The file's content, as JSON."""

    version: Literal[1]
    file: str  # the current file: its name, size in bytes, and the SHA-256 of its first 64 KiB
    size: Int63
    head: str
    earlier: str  # SHA-256 over names and sizes of the folder's files before it
    line: Int63
    played: Int63
    pass_number: Int63
    shift_ms: Int63
    first_ms: Int63 | None
    newest_ms: Int63
    first_id: Int63


class Resumed(NamedTuple):
    """The offset to resume after, and the id of the loop's first round (0: not a loop)."""

    offset: FileOffset
    first_id: int


class Checkpoint:
    """The state file of one recording. `close` writes the last noted offset."""

    def __init__(self, path: Path, recordings: Sequence[Recording]) -> None:
        self._path = path
        self._recordings = recordings
        self._heads: dict[tuple[int, int], tuple[str, str]] = {}  # by index and hashed bytes
        self._first_id = 0
        self._unwritten: FileOffset | None = None
        self._written_at = 0.0

    def load(self) -> Resumed | None:
        """Read where the last run stopped; None when there is no state file yet.

        Raises:
            SourceError: The file cannot be read, is not a state file, or belongs to another recording.
        """
        try:
            state = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"state file '{self._path}' cannot be read: {error.strerror or error}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SourceError(
                f"state file '{self._path}' is not a state file of this program ({error}); "
                "remove it to replay from the start"
            ) from error
        index = self._index_of(state)
        pass_ = Pass(state.pass_number, state.shift_ms, state.first_ms)
        return Resumed(FileOffset(pass_, index, state.line, state.played, state.newest_ms), state.first_id)

    def begin(self, offset: FileOffset, first_id: int) -> None:
        """Write the offset at which a run starts, before its first round is yielded.

        So a loop that crashes at once does not give the same ids to other rounds.

        Raises:
            SourceError: The file cannot be written.
        """
        self._first_id = first_id
        self._write(offset, sync=True)

    def note(self, offset: FileOffset) -> None:
        """Record a confirmed offset; write it when the last write is old enough."""
        self._unwritten = offset
        if monotonic() - self._written_at >= _EVERY_S:
            self._write(offset, sync=False)

    def close(self) -> None:
        """Write the last noted offset if it is not written yet."""
        if self._unwritten is not None:
            self._write(self._unwritten, sync=True)

    def _write(self, offset: FileOffset, *, sync: bool) -> None:
        recording = self._recordings[offset.file]
        head, earlier = self._identity(offset.file, recording.size)
        state = _State(
            version=1,
            file=recording.path.name,
            size=recording.size,
            head=head,
            earlier=earlier,
            line=offset.line,
            played=offset.played,
            pass_number=offset.pass_.number,
            shift_ms=offset.pass_.shift_ms,
            first_ms=offset.pass_.first_ms,
            newest_ms=offset.newest_ms,
            first_id=self._first_id,
        )
        try:
            with replacing(self._path) as file:
                file.write(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
                file.flush()
                if sync:  # not at every write: it may block the event loop for too long
                    os.fsync(file.fileno())
        except OSError as error:
            raise SourceError(f"state file '{self._path}' cannot be written: {error.strerror or error}") from error
        self._unwritten = None
        self._written_at = monotonic()

    def _index_of(self, state: _State) -> int:
        names = [recording.path.name for recording in self._recordings]
        if state.file not in names:
            raise self._foreign(f"it stopped in {state.file!r}, which does not exist")
        index = names.index(state.file)
        recording = self._recordings[index]
        if recording.size < state.size:
            raise self._foreign(f"{state.file!r} has {recording.size} bytes and had {state.size}")
        # A file that has grown is still the same: its beginning is that of its old size.
        head, earlier = self._identity(index, state.size)
        if head != state.head:
            raise self._foreign(f"the beginning of {state.file!r} has changed")
        if earlier != state.earlier:
            raise self._foreign(f"the files before {state.file!r} have changed")
        return index

    def _foreign(self, difference: str) -> SourceError:
        return SourceError(
            f"state file '{self._path}' belongs to another recording: {difference}; "
            "name another state_file, or remove this one to replay from the start"
        )

    def _identity(self, index: int, size: int) -> tuple[str, str]:
        """Hash the beginning of a file that has, or had, `size` bytes, and what is before it."""
        bytes_ = min(size, _HEAD_BYTES)
        if (index, bytes_) not in self._heads:
            path = self._recordings[index].path
            try:
                with path.open("rb") as file:
                    head = hashlib.sha256(file.read(bytes_)).hexdigest()
            except OSError as error:
                raise SourceError(f"recording '{path}' cannot be read: {error.strerror or error}") from error
            earlier = [(recording.path.name, recording.size) for recording in self._recordings[:index]]
            self._heads[index, bytes_] = head, hashlib.sha256(msgspec.json.encode(earlier)).hexdigest()
        return self._heads[index, bytes_]


_decode: Final = msgspec.json.Decoder(_State).decode
