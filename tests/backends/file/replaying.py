"""Helpers of these tests: write recordings, replay them with a clock that never waits, collect the items."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backends.contract import BackendContext, Captured, Rejected, SourceError
from backends.file import FileReplay
from backends.file.file_offset import FileOffset
from rounds import Catalogue, Round
from rounds.times import utc_text

CONTEXT = BackendContext(Catalogue.load())
START_MS = 1_768_730_400_000
"""2026-01-18T10:00:00Z."""

Item = Captured[FileOffset] | Rejected[FileOffset]


def round_at(number: int, *, at_ms: int | None = None, game: str = "crash") -> Round:
    """Make the `number`-th round of a game: one second after the round before, committed 30 ms after it finished."""
    finished_ms = START_MS + number * 1000 - 30
    timestamp = finished_ms + 30 if at_ms is None else at_ms
    game_type = CONTEXT.catalogue.game(game).type
    return Round.make(
        round_id=100 + number,
        game_slug=game,
        game_type=game_type,
        finished_at=utc_text(finished_ms),
        extras=json.dumps({"point": f"{number}.50"}),
        timestamp=timestamp,
    )


def rounds(count: int, *, first: int = 0, game: str = "crash") -> list[Round]:
    return [round_at(number, game=game) for number in range(first, first + count)]


def jsonl(recorded: Iterable[Round]) -> bytes:
    return b"".join(round_.to_json() + b"\n" for round_ in recorded)


def write(path: Path, recorded: Iterable[Round]) -> Path:
    path.write_bytes(jsonl(recorded))
    return path


class StoppedClock:
    """A clock that advances only when something waits for it."""

    def __init__(self, wall_ms: int = START_MS + 1_000_000_000) -> None:
        self.start_ms = wall_ms
        self.passed_s = 0.0
        self.waits: list[float] = []

    def now_s(self) -> float:
        return self.passed_s

    def wall_ms(self) -> int:
        return self.start_ms + round(self.passed_s * 1000)

    async def wait_until(self, moment_s: float) -> None:
        self.waits.append(moment_s)
        self.passed_s = max(self.passed_s, moment_s)


def replay(clock: StoppedClock | None = None, /, **options: object) -> FileReplay:
    """Make a replay, at full speed unless the options give a speed."""
    given: Mapping[str, Any] = {"speed": "max", **{name.rstrip("_"): value for name, value in options.items()}}
    return FileReplay(given, CONTEXT, clock=clock or StoppedClock())


async def played(backend: FileReplay, *, stop_after: int | None = None, confirm: bool = True) -> list[Item]:
    """Read a replay to its end, or for `stop_after` items, and confirm each item."""
    items: list[Item] = []
    async with backend.open():
        reading = backend.read()
        async for batch in reading:
            assert batch
            for item in batch:
                items.append(item)
                if confirm:
                    backend.confirm(item.offset)
                if len(items) == stop_after:
                    await reading.aclose()
                    return items
    return items


async def played_to_error(backend: FileReplay) -> tuple[list[Item], SourceError]:
    """Read a replay until it fails; return the items before the error, and the error."""
    items: list[Item] = []
    async with backend.open():
        try:
            async for batch in backend.read():
                items += batch
        except SourceError as error:
            return items, error
    raise AssertionError("the replay did not fail")


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def rounds_of(items: Iterable[Item]) -> list[Round]:
    return [item.round for item in items if isinstance(item, Captured)]


def ids(items: Iterable[Item]) -> list[int]:
    return [round_.round_id for round_ in rounds_of(items)]
