"""The errors of the log.

LogError
├── LogUnavailable       no answer now; wait and try again
│   ├── NoResponders     nothing listens on the subject: no stream, or no leader now
│   ├── LogDenied        our user lacks a permission; wait until an operator has given it
│   └── LogMismatch      settings of the stream break a promise; wait until an operator has edited it
├── LogRefused           credentials or certificates are not accepted; an operator must act
└── LogUnsuitable        this server cannot hold the log

Knows nothing of nats-py, whose exceptions `roundlog.client.faults` translates.
"""

from typing import NamedTuple


class LogError(Exception):
    """Base of the log's errors; ``str()`` is the sentence an operator reads."""


class LogUnavailable(LogError):
    """No answer now. The outcome of the request is unknown; try again later."""


class NoResponders(LogUnavailable):
    """Nothing listens on the subject of the request: no stream has it, or its stream has no leader at the moment."""


class LogDenied(LogUnavailable):
    """Our user in NATS lacks a permission. Nothing was done. An operator can give it while we wait."""

    def __init__(self, shown_url: str, verb: str, subject: str) -> None:
        super().__init__(shown_url, verb, subject)
        self.shown_url, self.verb, self.subject = shown_url, verb, subject

    def __str__(self) -> str:
        return (
            f"NATS at {self.shown_url} does not let this user {self.verb} to '{self.subject}': give it the permissions"
            " of docs/operations.md, section 'Permissions in NATS'"
        )


class LogRefused(LogError):
    """NATS does not accept the credentials or certificates, or they cannot be read."""


class LogUnsuitable(LogError):
    """This server cannot hold the log; the text says what it lacks."""


class Difference(NamedTuple):
    """One setting of a stream that differs from the expected one. Durations are in seconds."""

    name: str
    found: object
    wanted: object


class LogMismatch(LogUnavailable):
    """Settings of the stream break a promise. Nothing was changed. It can be edited while we wait."""

    def __init__(self, stream: str, differences: tuple[Difference, ...]) -> None:
        super().__init__(stream, differences)
        self.stream, self.differences = stream, differences

    def __str__(self) -> str:
        each = "; ".join(f"{name} is {found!r}, wanted {wanted!r}" for name, found, wanted in self.differences)
        return (
            f"stream {self.stream!r} has settings that break a promise and was not changed: {each}. "
            f"Change it back (nats stream edit {self.stream})"
        )
