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


@contextmanager
def passing(title: str, *, begin_ms: int | None, end_ms: int | None, shown: bool) -> Iterator[Callable[[bytes], None]]:
    """Show how much of a stretch of time has passed in the rounds that the block reports, if a person watches.

    Args:
        title: What is going on.
        begin_ms: Where the stretch begins (Unix milliseconds); None: at the first round.
        end_ms: Where it ends; None: nobody knows, so that only a count is shown.
        shown: Off: nothing is shown.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda _data: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rounds]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task, count, begun_ms = bar.add_task(title, total=None, rounds="0 rounds"), 0, begin_ms

        def on_round(data: bytes) -> None:
            nonlocal count, begun_ms
            count += 1
            moment_ms = Round.parse(data).timestamp
            begun_ms = moment_ms if begun_ms is None else begun_ms
            bar.update(
                task,
                total=None if end_ms is None else max(1, end_ms - begun_ms),
                completed=max(0, moment_ms - begun_ms),
                rounds=f"{count} rounds",
            )

        yield on_round


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
