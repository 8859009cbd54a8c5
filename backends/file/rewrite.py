"""Give rounds that are played again, or as if live, ids and times of their own. Pure."""

from collections.abc import Callable

from backends.contract import SourceError
from backends.file.offset import FileOffset
from rounds import Round
from rounds.times import utc_text

Renew = Callable[[Round, FileOffset, int], Round]
"""Takes a round as recorded, its offset, and the time at which it is played (Unix milliseconds)."""


def renewal(*, first_id: int, speed: float, shift_to_now: bool) -> Renew | None:
    """Make the function that renews rounds; None when rounds are played as they were recorded.

    Args:
        first_id: The id of the first round of a loop; each round played takes the next. 0: ids stay.
        speed: Times the original cadence. The time that a game took to store a round shrinks with it, so that rounds
            keep their order by ``finished_at`` too.
        shift_to_now: ``timestamp`` becomes the time of playing. Else a loop moves times by the length of its passes.
    """
    if not first_id and not shift_to_now:
        return None

    def renew(round_: Round, offset: FileOffset, now_ms: int) -> Round:
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
                f"round {round_.round_id} of {round_.game_slug} cannot be moved in time: finished_at "
                f"{round_.finished_at} and timestamp {round_.timestamp} leave the years 1 to 9999"
            ) from error
        return Round(round_id, round_.game_slug, round_.game_type, finished_at, round_.extras, timestamp)

    return renew
