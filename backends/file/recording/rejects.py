"""The rejects file: what in a recording is no round, one JSON object per line, for an operator to look at and mend."""

from pathlib import Path
from typing import Final, Self

import msgspec

from backends.contract import SourceError

_encode: Final = msgspec.json.Encoder().encode


class RejectsFile:
    """Appends to `path` between `open` and `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, *, file: str, line: int, reason: str, raw: bytes) -> None:
        """Append one rejected line; bytes in it that are not UTF-8 appear as ``\\xff``.

        Raises:
            SourceError: It cannot be written, and the line would vanish.
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
