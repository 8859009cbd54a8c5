"""The rejects file: the lines of a recording that are not rounds, one JSON object per line, for an operator."""

from pathlib import Path
from typing import Final, Self

import msgspec

from backends.contract import SourceError
from backends.file.own_files import open_to_append

_encode: Final = msgspec.json.Encoder().encode


class RejectsFile:
    """Appends rejected lines to `path`, which is created when it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open_to_append(path)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, *, file: str, line: int, reason: str, raw: bytes) -> None:
        """Append one rejected line; bytes that are not UTF-8 are written as ``\\xff``.

        Raises:
            SourceError: The file cannot be written. The run stops, so that the line is not lost.
        """
        entry = {"file": file, "line": line, "reason": reason, "raw": raw.decode(errors="backslashreplace")}
        try:
            self._file.write(_encode(entry) + b"\n")
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failed(self, error: OSError) -> SourceError:
        return SourceError(f"rejects file '{self._path}' cannot be written: {error.strerror or error}")
