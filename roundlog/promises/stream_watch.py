"""What one process knows of the settings of its streams, and the log lines about them.

Knows nothing of how streams are asked for. A stream with a broken promise makes the process not ready; it does not end
it: see docs/adr/0022-stream-settings-that-carry-promises.md
"""

from collections.abc import Iterator
from typing import Final

import structlog

from roundlog.log_errors import Difference, LogMismatch
from roundlog.promises.stream_settings import NO_DIFFERENCES, Differences

log = structlog.get_logger()

OBSTACLE: Final = "log_mismatch"
"""Why a process is not ready while a promise of a stream is broken, in one word."""


class StreamWatch:
    """The last known differences of each stream. Logs each change of them once."""

    def __init__(self) -> None:
        self._streams: dict[str, Differences] = {}
        self.stopped: str | None = None
        """A sentence about the stream that stores nothing any more; None: there is none."""

    def note(self, stream: str, differences: Differences, *, stopped: bool | None = None) -> None:
        """Take what a stream is like now; `stopped`: whether it stores nothing; None: not known."""
        if stopped and self.stopped is None:
            log.error("stream_stopped", stream=stream, hint=stopped_sentence(stream))
        if stopped is not None:
            self.stopped = stopped_sentence(stream) if stopped else None
        before = self._streams.get(stream, NO_DIFFERENCES)
        self._streams[stream] = differences
        if differences.harmless != before.harmless and differences.harmless:
            log.warning("stream_differs", stream=stream, settings=in_words(differences.harmless))
        if differences.broken == before.broken:
            return
        if differences.broken:
            log.error("stream_mismatch", stream=stream, settings=in_words(differences.broken))
        else:
            log.info("stream_restored", stream=stream)

    @property
    def sentence(self) -> str | None:
        """What is broken and what is needed, for an operator; None: nothing is."""
        found = [str(LogMismatch(name, one.broken)) for name, one in self._streams.items() if one.broken]
        return "; ".join(found) or None

    def broken(self) -> Iterator[tuple[str, Difference]]:
        """Yield each stream and setting whose promise is broken."""
        for name, differences in self._streams.items():
            for difference in differences.broken:
                yield name, difference


def stopped_sentence(stream: str) -> str:
    """Say what to do about a stream that stores nothing."""
    return (
        f"stream {stream!r} stores nothing since nats-server could not write to its disk:"
        " free space there, then restart nats-server"
    )


def in_words(differences: tuple[Difference, ...]) -> str:
    """Write differences for an operator."""
    return "; ".join(f"{name} is {found!r}, wanted {wanted!r}" for name, found, wanted in differences)
