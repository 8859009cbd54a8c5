"""Give replayed rounds new ids and times, for ``loop`` and ``shift_to_now``. Pure."""

from collections.abc import Callable

from backends.contract import SourceError
from backends.file.file_offset import FileOffset
from rounds import Round
from rounds.times import utc_text

Rewrite = Callable[[Round, FileOffset, int], Round]
"""Takes a round as recorded, its offset, and the current time (Unix milliseconds)."""


def make_rewrite(*, first_id: int, speed: float, shift_to_now: bool) -> Rewrite | None:
    """Make the function that rewrites rounds; None when rounds are played as recorded.

    Args:
        first_id: The id of the first round of a loop; each further round gets the next id. 0: ids do not change.
        speed: Multiple of the original cadence. The time between ``finished_at`` and ``timestamp`` is divided by it, so
            that rounds keep their order by ``finished_at`` too.
        shift_to_now: Set ``timestamp`` to the current time. Otherwise the length of all earlier passes is added to it.
    """
    if not first_id and not shift_to_now:
        return None

    def rewrite(round_: Round, offset: FileOffset, now_ms: int) -> Round:
        round_id = first_id + offset.played - 1 if first_id else round_.round_id
        try:
            finished_ms = round(round_.finished.timestamp() * 1000)
            if shift_to_now:
                timestamp = now_ms
                finished_ms = now_ms - int(max(0, round_.timestamp - finished_ms) / speed)
            else:
                timestamp = round_.timestamp + offset.pass_.shift_ms
                finished_ms += offset.pass_.shift_ms
            finished_at = utc_text(finished_ms)
        except (ValueError, OverflowError, OSError) as error:
            raise SourceError(
                f"round {round_.round_id} of {round_.game_slug} cannot be shifted in time: finished_at "
                f"{round_.finished_at} or timestamp {round_.timestamp} would be outside the years 1 to 9999"
            ) from error
        return Round(round_id, round_.game_slug, round_.game_type, finished_at, round_.extras, timestamp)

    return rewrite
