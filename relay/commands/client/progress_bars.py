"""Show the progress of a command on stderr, when stderr is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rounds import Round


@contextmanager
def count_progress(title: str, *, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar (without `total`, a count) on stderr while the block runs; nothing if stderr is not a terminal."""
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
def time_progress(
    title: str, *, begin_ms: int | None, end_ms: int | None, shown: bool
) -> Iterator[Callable[[bytes], None]]:
    """Show on stderr how far the rounds that the block reports have come in a range of time.

    Args:
        title: The text before the bar.
        begin_ms: The beginning of the range (Unix milliseconds); None: the time of the first round.
        end_ms: The end of the range; None: unknown, so that only a count is shown.
        shown: Show nothing when False. Nothing is shown either when stderr is not a terminal.
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
