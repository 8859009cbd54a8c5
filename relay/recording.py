"""Write rounds to a file that the file backend replays, and show how far it is."""

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from relay.errors import StartError
from rounds import Round


@contextmanager
def recording(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Open a new recording; yield what takes one round's JSON. The name says how it is packed.

    Raises:
        StartError: The name is of no known kind, or the file exists or cannot be made.
    """
    try:
        with _open(path) as file:

            def write(data: bytes) -> None:
                file.write(Round.parse(data).to_json() + b"\n")  # the six given fields: cursors are of one log only

            yield write
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


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".jsonl"):
        return path.open("xb")
    if path.name.endswith(".jsonl.gz"):
        return gzip.open(path, "xb")  # type: ignore[return-value]  # it is a binary file in all but name
    if path.name.endswith(".jsonl.zst"):
        import zstandard

        file: IO[bytes] = zstandard.open(path, "xb")
        return file
    raise StartError(f"{path.name} must end in .jsonl, .jsonl.gz or .jsonl.zst")
