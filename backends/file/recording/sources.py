"""Find recordings and read their decompressed bytes. `RecordingStream.read` blocks and belongs in a thread.

Owns the errors of files that cannot be read. Knows nothing of lines or rounds.
"""

import gzip
import io
import os
import select
import sys
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import zstandard

from backends.contract import SourceError
from backends.file.recording.formats import FORMATS, Compression, Format, format_of

CHUNK_BYTES: Final = 128 << 10
"""Number of bytes read at a time: about as many rounds as a batch may have."""
_COMPRESSED_BYTES: Final = 1 << 10
"""Number of bytes decompressed at a time. 4 bytes of zstd can expand to 128 KiB, so this bounds memory at 32 MiB."""


class Recording(NamedTuple):
    """One file of a recording."""

    path: Path
    format: Format
    size: int


def find(path: Path, format_: Format | None = None) -> Sequence[Recording]:
    """List the recordings at `path`: the file itself, or those of a folder in the order of their names.

    Raises:
        SourceError: There is none, it cannot be read, or its name does not show its format.
    """
    try:
        if path.is_dir():
            return _folder(path, format_)
        if not path.exists():
            raise SourceError(f"recording '{path}' does not exist")
        if not path.is_file():
            raise SourceError(f"recording '{path}' is neither a file nor a folder; use '-' to read a stream")
        found = format_ or format_of(path.name)
        if found is None:
            raise SourceError(
                f"the name of recording '{path}' does not show its format; set the option format to one of {_endings()}"
            )
        if not os.access(path, os.R_OK):
            raise SourceError(f"recording '{path}' cannot be read: permission denied")
        return [Recording(path, found, path.stat().st_size)]
    except OSError as error:
        raise SourceError(f"recording '{path}' cannot be read: {error.strerror or error}") from error


def _folder(path: Path, format_: Format | None) -> Sequence[Recording]:
    found = []
    for file in sorted(path.iterdir(), key=lambda file: file.name):
        of_name = format_of(file.name)
        if of_name is not None and not file.name.startswith(".") and file.is_file():
            found.append(Recording(file, format_ or of_name, file.stat().st_size))
    if not found:
        raise SourceError(f"folder '{path}' has no recordings; their names end in one of {_endings()}")
    return found


def _endings() -> str:
    return ", ".join(FORMATS)


class RecordingStream:
    """The decompressed bytes of one recording, or of standard input."""

    def __init__(self, name: str, raw: io.RawIOBase, compression: Compression) -> None:
        self.name = name
        self.done_bytes = 0
        """Number of bytes of the file on disk that have been read."""
        self._raw = raw
        self._chunks = _DECODERS[compression](raw)

    def read(self) -> bytes:
        """Return the next bytes, usually `CHUNK_BYTES` and at most some 32 MiB; empty at the end.

        Raises:
            SourceError: The file is truncated or corrupt, or cannot be read.
        """
        try:
            chunk = next(self._chunks, b"")
            if not isinstance(self._raw, _Stdin):
                self.done_bytes = self._raw.tell()
        except EOFError as error:
            raise SourceError(f"{self.name} is truncated: its compressed data has no end") from error
        except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise SourceError(f"{self.name} cannot be decompressed: {error}") from error
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read: {error.strerror or error}") from error
        return chunk

    def interrupt(self) -> None:
        """Wake a `read` that waits for standard input in another thread."""
        if isinstance(self._raw, _Stdin):
            self._raw.interrupt()

    def close(self) -> None:
        self._chunks.close()
        self._raw.close()


def open_recording(recording: Recording) -> RecordingStream:
    """Open a file of a recording; raise `SourceError` when that fails."""
    try:
        raw = recording.path.open("rb", buffering=0)
    except OSError as error:
        raise SourceError(f"recording '{recording.path}' cannot be read: {error.strerror or error}") from error
    return RecordingStream(recording.path.name, raw, recording.format.compression)


def open_stdin(compression: Compression) -> RecordingStream:
    """Open standard input. Closing the stream does not close standard input."""
    return RecordingStream("standard input", _Stdin(sys.stdin.fileno()), compression)


class _Stdin(io.RawIOBase):
    """Standard input whose `read` can be interrupted: a thread blocked in it would prevent the exit."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._woken, self._wake = os.pipe()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        ready, _, _ = select.select([self._fd, self._woken], [], [])
        return b"" if self._woken in ready else os.read(self._fd, CHUNK_BYTES if size < 0 else size)

    def interrupt(self) -> None:
        os.write(self._wake, b".")

    def close(self) -> None:
        if not self.closed:
            os.close(self._woken)
            os.close(self._wake)
        super().close()


def _plain(raw: io.RawIOBase) -> Generator[bytes, None, None]:
    while chunk := raw.read(CHUNK_BYTES):
        yield chunk


def _gzip(raw: io.RawIOBase) -> Generator[bytes, None, None]:
    with gzip.GzipFile(fileobj=raw, mode="rb") as file:
        while chunk := file.read1(CHUNK_BYTES):
            yield chunk


def _zstd(raw: io.RawIOBase) -> Generator[bytes, None, None]:
    # Not stream_reader(): it does not report a truncated file.
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    while data := raw.read(CHUNK_BYTES):
        ready: list[bytes] = []
        for start in range(0, len(data), _COMPRESSED_BYTES):
            piece = data[start : start + _COMPRESSED_BYTES]
            while piece:
                frame = frame or decompressor.decompressobj()
                ready.append(frame.decompress(piece))
                piece = b""
                if frame.eof:  # another frame may follow: `cat a.zst b.zst` is a zstd file
                    piece, frame = frame.unused_data, None
            if sum(map(len, ready)) >= CHUNK_BYTES:
                yield b"".join(ready)
                ready.clear()
        if any(ready):
            yield b"".join(ready)
    if frame is not None:
        raise EOFError


_DECODERS: Final = {Compression.NONE: _plain, Compression.GZIP: _gzip, Compression.ZSTD: _zstd}
