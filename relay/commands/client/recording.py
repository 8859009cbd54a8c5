"""Write rounds to a recording, which the file backend can replay."""

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from relay.errors import StartError
from rounds import Round


@contextmanager
def recording(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Make a new recording; yield a function that writes one round, given as JSON. The name gives the compression.

    The file gets its name when the block has ended without an error. When the block fails, nothing remains.

    Raises:
        StartError: The ending of the name is unknown, the file exists, or it cannot be written.
    """
    if path.exists():
        raise StartError(f"{path} exists already; choose another name, or remove it")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        try:
            with _open(part, name=path.name) as file:

                def write(data: bytes) -> None:
                    # Without the cursor, which is valid for one log only.
                    file.write(Round.parse(data).to_json() + b"\n")

                yield write
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror or error}") from error


def _open(path: Path, *, name: str) -> IO[bytes]:
    if name.endswith(".jsonl"):
        return path.open("xb")
    if name.endswith(".jsonl.gz"):
        return gzip.open(path, "xb")  # type: ignore[return-value]  # has the methods of a binary file
    if name.endswith(".jsonl.zst"):
        import zstandard

        file: IO[bytes] = zstandard.open(path, "xb")
        return file
    raise StartError(f"{name} must end in .jsonl, .jsonl.gz or .jsonl.zst")
