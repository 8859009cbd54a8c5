"""Write rounds to a recording, which the file backend can replay."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from backends.file.own_files import replacing
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
    try:
        compressor = _compressor(path.name)
        with replacing(path) as part, compressor(part) as file:

            def write(data: bytes) -> None:
                # Without the cursor, which is valid for one log only.
                file.write(Round.parse(data).to_json() + b"\n")

            yield write
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror or error}") from error


def _compressor(name: str) -> Callable[[IO[bytes]], AbstractContextManager[IO[bytes]]]:
    """Return what makes the file to write to of the one in which it is stored, by the ending of its name."""
    if name.endswith(".jsonl"):
        return nullcontext
    if name.endswith(".jsonl.gz"):
        return lambda file: gzip.GzipFile(filename="", mode="wb", fileobj=file)  # type: ignore[return-value]  # has the methods of a binary file
    if name.endswith(".jsonl.zst"):
        import zstandard

        return lambda file: zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    raise StartError(f"{name} must end in .jsonl, .jsonl.gz or .jsonl.zst")
