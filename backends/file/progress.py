"""A progress bar on stderr for a replay that ends. Imported only when a person watches."""

from time import monotonic
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_EVERY_S: Final = 0.1


class ProgressBar:
    """Shows how much of `total_bytes` is done. Draws only when a method is called, at most ten times a second."""

    def __init__(self, name: str, total_bytes: int, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn(name, markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rounds]:,} rounds"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            auto_refresh=False,
        )
        self._total_bytes = total_bytes
        self._rounds = 0
        self._task = self._progress.add_task("", total=total_bytes, rounds=0)
        self._drawn_at = 0.0

    def read(self, done_bytes: int) -> None:
        """Record how much has been read, also while no round of it is played."""
        self.show(done_bytes, self._rounds)

    def finished(self) -> None:
        """Record that the replay has reached its end."""
        self.show(self._total_bytes, self._rounds)

    def show(self, done_bytes: int, rounds: int) -> None:
        """Record how many bytes are done and how many rounds have been played."""
        self._rounds = rounds
        self._progress.update(self._task, completed=done_bytes, rounds=rounds)
        if monotonic() - self._drawn_at >= _EVERY_S:
            self._progress.refresh()
            self._drawn_at = monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()  # draws once more
