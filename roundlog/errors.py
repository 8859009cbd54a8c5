"""What can be wrong with the log.

LogError
├── LogUnavailable   no answer now; wait and try again
├── LogRefused       credentials or certificates are not accepted; an operator must act
├── LogMismatch      the stream exists with other settings than ours; an operator must decide
└── LogUnsuitable    this server cannot hold the log
"""

from typing import NamedTuple


class LogError(Exception):
    """Base of the log's errors; ``str()`` is the sentence an operator reads."""


class LogUnavailable(LogError):
    """No answer now. Nothing is known about what was asked for; try again later."""


class LogRefused(LogError):
    """NATS does not accept our credentials or certificates, or they cannot be read."""


class LogUnsuitable(LogError):
    """This server cannot hold the log; the text says what it lacks."""


class Difference(NamedTuple):
    """One setting of the stream that is not as wanted. Durations are in seconds."""

    name: str
    found: object
    wanted: object


class LogMismatch(LogError):
    """The stream exists with other settings. It was not changed."""

    def __init__(self, stream: str, differences: tuple[Difference, ...]) -> None:
        super().__init__(stream, differences)
        self.stream, self.differences = stream, differences

    def __str__(self) -> str:
        each = "; ".join(f"{name} is {found!r}, wanted {wanted!r}" for name, found, wanted in self.differences)
        return (
            f"stream {self.stream!r} exists with other settings and was not changed: {each}. "
            "Change the stream (nats stream edit) or the RELAY_NATS_ settings"
        )
