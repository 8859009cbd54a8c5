"""Write rounds to a file that the file backend replays, and show how far it is."""

import gzip
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from relay.errors import StartError
from rounds import Round


@contextmanager
def recording(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Make a new recording; yield what takes one round's JSON. The name says how it is packed.

    The file is there once the block has ended well, and whole. Until then it has another name, and if the block fails
    nothing is left of it.

    Raises:
        StartError: The name is of no known kind, or the file exists or cannot be made.
    """
    if path.exists():
        raise StartError(f"{path} is there already; choose another name, or remove it")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        try:
            with _open(part, packed_as=path.name) as file:

                def write(data: bytes) -> None:
                    # The six given fields: cursors are of one log only.
                    file.write(Round.parse(data).to_json() + b"\n")

                yield write
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def progress(title: str, *, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar (or, without `total`, a count) on stderr while the block runs, if a person watches."""
    if not shown or not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda step: bar.advance(task, step)


def _open(path: Path, *, packed_as: str) -> IO[bytes]:
    if packed_as.endswith(".jsonl"):
        return path.open("xb")
    if packed_as.endswith(".jsonl.gz"):
        return gzip.open(path, "xb")  # type: ignore[return-value]  # it is a binary file in all but name
    if packed_as.endswith(".jsonl.zst"):
        import zstandard

        file: IO[bytes] = zstandard.open(path, "xb")
        return file
    raise StartError(f"{packed_as} must end in .jsonl, .jsonl.gz or .jsonl.zst")
