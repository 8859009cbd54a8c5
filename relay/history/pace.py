"""When a round of a paced replay is due: the original cadence times a speed, relative to the replay's start. Pure."""


class ReplayPace:
    """Schedules rounds relative to the first one, so that delays of sending do not add up."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first_ms: int | None = None
        self._begun_at_s = 0.0

    def due_at_s(self, timestamp_ms: int, now_s: float) -> float:
        """Return when a round is due, on the clock of `now_s`. The first one is due at once."""
        if self._first_ms is None:
            self._first_ms, self._begun_at_s = timestamp_ms, now_s
        return self._begun_at_s + (timestamp_ms - self._first_ms) / 1000 / self._speed
