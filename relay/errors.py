"""Every way to refuse a client, and the one table of how each protocol says it.

RelayError
├── ClientError          the request cannot be served as it is
│   ├── BadRequest       malformed; fix the request
│   ├── BadMessage       a WebSocket client said something it may not; its link ends with 1008
│   ├── NotAllowed       the credential does not cover this game or origin
│   ├── CursorLost       the log knows nothing of this cursor (any more)
│   ├── NoRoundYet       the game has no round in the log
│   ├── Unsupported      the gRPC service has no such method, or knows no such compression
│   ├── TooLarge         the request is longer than the gRPC service takes
│   ├── WrongMediaType   the body is of a type that is not understood here
│   ├── NeedsUpgrade     a WebSocket path was asked for without a WebSocket handshake
│   └── NotFound         no such path
├── Unavailable          this instance is full or going away; another one, or this one later, answers
│   └── TooManyCalls     this instance has enough to answer at the moment
└── StartError           the process cannot start; one sentence for the operator

Errors of the domain (`rounds`) and of `auth` have their rows in the table too.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from auth.credentials import AmbiguousCredential, NotAllowedOrigin
from auth.keys import InvalidCredential
from auth.tokens import InvalidToken
from roundlog.errors import LogUnavailable
from rounds import Cursor, InvalidCursor, InvalidFilter, UnknownGame, UnknownType


class RelayError(Exception):
    """Base of the relay's own errors; ``str()`` is the sentence a user reads."""


class ClientError(RelayError):
    """The request cannot be served as it is."""


class BadRequest(ClientError):
    """Malformed: the text names the parameter, its value and what is allowed."""


class BadMessage(ClientError):
    """A WebSocket client said something it may not; its link ends with 1008 and this sentence."""


class NotAllowed(ClientError):
    """The credential is good but does not cover what was asked for."""


class Unsupported(ClientError):
    """The service has no such method, or knows no such compression."""


class TooLarge(ClientError):
    """The request is longer than the gRPC service takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the request has more than {self.limit} bytes, which is the limit here"


class WrongMediaType(ClientError):
    """The body is of a type that is not understood here."""

    def __init__(self, found: str, *, allowed: Iterable[str]) -> None:
        super().__init__(found)
        self.found, self.allowed = found, tuple(allowed)

    def __str__(self) -> str:
        return f"{self.found[:80]} is not understood here; send {', '.join(self.allowed)}"


class NeedsUpgrade(ClientError):
    """A WebSocket path was asked for without a WebSocket handshake."""

    def __str__(self) -> str:
        return "this path speaks WebSocket; connect with a WebSocket client, or use /sse for plain HTTP"


class CursorLost(ClientError):
    """A cursor that this log knows nothing of: it is of an earlier log, or beyond the end of this one."""

    def __init__(self, cursor: Cursor, *, first: Cursor, head: Cursor) -> None:
        super().__init__(cursor)
        self.cursor, self.first, self.head = cursor, first, head

    def __str__(self) -> str:
        return (
            f"cursor {str(self.cursor)!r} is not of this log, which holds {self.first} to {self.head}; start without it"
        )


class NoRoundYet(ClientError):
    """The game is known, and has no round in the log."""


class NotFound(ClientError):
    """No such path."""


class Unavailable(RelayError):
    """This instance takes no new links now. ``retry_ms`` is when to come back."""

    def __init__(self, reason: str, retry_ms: int) -> None:
        super().__init__(reason, retry_ms)
        self.reason, self.retry_ms = reason, retry_ms

    def __str__(self) -> str:
        return f"this relay takes no new connections ({self.reason}); try again in {self.retry_ms} ms"


class TooManyCalls(Unavailable):
    """This instance has enough to answer at the moment."""

    def __init__(self, retry_ms: int) -> None:
        super().__init__("capacity", retry_ms)

    def __str__(self) -> str:
        return f"this relay answers too many calls at the moment; try again in {self.retry_ms} ms"


class StartError(RelayError):
    """The process cannot start; the text says what to change."""


class Refusal(NamedTuple):
    """How an error looks to a client: HTTP status and the stable word in ``code``."""

    status: int
    code: str


REFUSALS: Final[Mapping[type[Exception], Refusal]] = {
    BadRequest: Refusal(400, "bad_request"),
    AmbiguousCredential: Refusal(400, "ambiguous_credential"),
    InvalidCursor: Refusal(400, "invalid_cursor"),
    InvalidFilter: Refusal(400, "invalid_filter"),
    InvalidCredential: Refusal(401, "invalid_credential"),
    InvalidToken: Refusal(401, "invalid_token"),
    NotAllowed: Refusal(403, "not_allowed"),
    NotAllowedOrigin: Refusal(403, "not_allowed_origin"),
    UnknownGame: Refusal(404, "unknown_game"),
    UnknownType: Refusal(404, "unknown_type"),
    CursorLost: Refusal(404, "cursor_lost"),
    NoRoundYet: Refusal(404, "no_round_yet"),
    NotFound: Refusal(404, "not_found"),
    TooLarge: Refusal(413, "too_large"),
    WrongMediaType: Refusal(415, "unsupported_media_type"),
    NeedsUpgrade: Refusal(426, "upgrade_required"),
    Unsupported: Refusal(501, "unsupported"),
    Unavailable: Refusal(503, "unavailable"),
    LogUnavailable: Refusal(503, "log_unavailable"),
}
"""For users: docs/errors.md."""


def refusal_of(error: Exception) -> Refusal | None:
    """Look up how to tell a client of `error`; None when it is no fault of the client's but a bug of ours."""
    for kind in type(error).__mro__:
        if kind in REFUSALS:
            return REFUSALS[kind]
    return None
