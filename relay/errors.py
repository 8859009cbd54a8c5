"""The errors of the relay, and the table of HTTP statuses and codes for every error that a client can get.

RelayError
├── ClientError          the request cannot be served; the client must change it
│   ├── BadRequest       the request is malformed
│   ├── BadMessage       a WebSocket client sent a message that is not allowed; its link ends with 1008
│   ├── NotAllowed       the credential does not allow this game
│   ├── NotAllowedAddress    the key may not be used from the client's address
│   ├── PrivateKeyInBrowser  a browser sent a private key, and the settings refuse that
│   ├── CursorLost       the log does not have this cursor
│   ├── NoRoundYet       the game has no round in the log
│   ├── Unsupported      the gRPC service does not have this method or compression
│   ├── TooLarge         the request is longer than its path or the gRPC service accepts
│   ├── SlowRequest      the body of the request has not arrived in time
│   ├── WrongMediaType   the media type of the body is not supported
│   ├── NeedsUpgrade     a WebSocket path was requested without a WebSocket handshake
│   ├── NotFound         the path does not exist
│   └── Misdirected      the request names a host that is not this one
├── TooManyRequests      the client is over a limit of its key or address; it comes back after a delay
├── IdentityUnavailable  the keys of the identity provider are not known now
├── Unavailable          this instance is full or draining; the client reconnects later
│   ├── TooManyCalls     this instance has too many concurrent calls
│   └── KeysUnavailable  a key store is away, so that credentials cannot be judged now
└── StartError           the process cannot start; one sentence for the operator
    └── PortUnavailable  a port cannot be listened on

The table also has the errors of `rounds`, `auth` and `roundlog` that a client can get.
"""

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from auth.credentials import AmbiguousCredential, NotAllowedOrigin
from auth.identity.identity_rules import InvalidIdentity
from auth.key import InvalidCredential
from auth.tokens import InvalidToken
from roundlog.log_errors import LogUnavailable
from rounds import Cursor, InvalidCursor, InvalidFilter, UnknownGame, UnknownType

TOO_MANY_REQUESTS: Final = "Too many requests, please slow down"
"""The sentence of every 429: given clients show it."""


class RelayError(Exception):
    """Base of the relay's errors; ``str()`` is the sentence for the user."""


class ClientError(RelayError):
    """The request cannot be served; the client must change it."""


class BadRequest(ClientError):
    """The request is malformed. The text has the parameter, its value and what is allowed."""


class BadMessage(ClientError):
    """A WebSocket client sent a message that is not allowed; its link ends with 1008 and this sentence."""


class NotAllowed(ClientError):
    """The credential is valid but does not allow the request."""


class NotAllowedAddress(ClientError):
    """The key may not be used from the client's address. The text does not say from where it may be."""

    def __str__(self) -> str:
        return "this key may not be used from this address"


class PrivateKeyInBrowser(ClientError):
    """A browser sent a private key, and the settings refuse that."""

    def __str__(self) -> str:
        return "a private key must not be used by web pages; use a public key there, or a stream token of your server"


class Unsupported(ClientError):
    """The service does not have this method or compression."""


class TooLarge(ClientError):
    """The request is longer than its path or the gRPC service accepts."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the request has more than {self.limit} bytes, which is the limit"


class SlowRequest(ClientError):
    """The body of the request has not arrived in time."""

    def __init__(self, within_s: float) -> None:
        super().__init__(within_s)
        self.within_s = within_s

    def __str__(self) -> str:
        return f"the request's body has not arrived within {self.within_s:g} s, which is the limit"


class WrongMediaType(ClientError):
    """The media type of the body is not supported."""

    def __init__(self, found: str, *, allowed: Iterable[str]) -> None:
        super().__init__(found)
        self.found, self.allowed = found, tuple(allowed)

    def __str__(self) -> str:
        return f"{self.found[:80]} is not supported here; send {', '.join(self.allowed)}"


class NeedsUpgrade(ClientError):
    """A WebSocket path was requested without a WebSocket handshake."""

    def __str__(self) -> str:
        return "this path is for WebSocket; connect with a WebSocket client, or use /sse for plain HTTP"


class CursorLost(ClientError):
    """The log does not have this cursor: it is of another log, or after the end of this one."""

    def __init__(self, cursor: Cursor, *, first: Cursor, head: Cursor) -> None:
        super().__init__(cursor)
        self.cursor, self.first, self.head = cursor, first, head

    def __str__(self) -> str:
        return (
            f"cursor {str(self.cursor)!r} is not of this log, which holds {self.first} to {self.head}; start without it"
        )


class NoRoundYet(ClientError):
    """The game is in the catalogue, but has no round in the log."""


class NotFound(ClientError):
    """The path does not exist."""


class Misdirected(ClientError):
    """The request names a host that this server is not."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return f"Host {self.host[:100]!r} is not this machine; only localhost, 127.0.0.1 and [::1] are answered here"


class Quota(NamedTuple):
    """How much of a limit a client may still use."""

    limit: int
    remaining: int
    reset_s: int
    """Seconds until all of it may be used again, rounded up."""


class TooManyRequests(RelayError):
    """The client is over a limit of its key or address. ``retry_ms`` is the delay after which it is within it again."""

    def __init__(self, limit: str, retry_ms: int, quota: Quota | None = None, *, closes: bool = False) -> None:
        """Make the refusal.

        Args:
            limit: The name of the limit, for logs and metrics.
            retry_ms: The delay.
            quota: The state of the limit, for the headers of the answer.
            closes: Whether the connection is to be closed after the answer.
        """
        super().__init__(limit, retry_ms)
        self.limit, self.retry_ms, self.quota, self.closes = limit, retry_ms, quota, closes

    def __str__(self) -> str:
        return TOO_MANY_REQUESTS


class Unavailable(RelayError):
    """This instance accepts no new links now. ``retry_ms`` is the delay before the client reconnects."""

    def __init__(self, reason: str, retry_ms: int) -> None:
        super().__init__(reason, retry_ms)
        self.reason, self.retry_ms = reason, retry_ms

    def __str__(self) -> str:
        return f"this relay accepts no new connections ({self.reason}); try again in {self.retry_ms} ms"


class TooManyCalls(Unavailable):
    """This instance has too many concurrent calls."""

    def __init__(self, retry_ms: int) -> None:
        super().__init__("capacity", retry_ms)

    def __str__(self) -> str:
        return f"this relay has too many concurrent calls; try again in {self.retry_ms} ms"


class KeysUnavailable(Unavailable):
    """A key store is away, so that credentials cannot be judged now."""

    def __init__(self, retry_ms: int) -> None:
        super().__init__("key_store_unavailable", retry_ms)

    def __str__(self) -> str:
        return f"this relay cannot check API keys and tokens now; try again in {self.retry_ms} ms"


class IdentityUnavailable(RelayError):
    """The keys of the operator's identity provider are not known now; API keys work."""

    def __str__(self) -> str:
        return "the identity provider cannot be reached, so its tokens cannot be checked; try again in a few seconds"


class StartError(RelayError):
    """The process cannot start; the text says what to change."""


class PortUnavailable(StartError):
    """A port cannot be listened on."""

    def __init__(self, address: str, error: OSError, *, setting: str) -> None:
        super().__init__(address, error, setting)
        self.address, self.error, self.setting = address, error, setting

    def __str__(self) -> str:
        # Python and asyncio add the address to the system's text. Errors of name resolution have negative numbers.
        number = self.error.errno or 0
        reason = os.strerror(number) if number > 0 else self.error.strerror or str(self.error)
        of_host = isinstance(self.error, socket.gaierror) or number == errno.EADDRNOTAVAIL
        advice = f"address with {_host_setting(self.setting)}" if of_host else f"port with {self.setting}"
        return f"cannot listen on {self.address}: {reason}; choose another {advice}"


def _host_setting(port_setting: str) -> str:
    """Return the setting of the same section that has the address, such as ``RELAY_HTTP_HOST``."""
    return "_".join([*port_setting.split("_")[:2], "HOST"])


class Refusal(NamedTuple):
    """The HTTP status of an error, and its stable word in the field ``code``."""

    status: int
    code: str


REFUSALS: Final[Mapping[type[Exception], Refusal]] = {
    BadRequest: Refusal(400, "bad_request"),
    AmbiguousCredential: Refusal(400, "ambiguous_credential"),
    InvalidCursor: Refusal(400, "invalid_cursor"),
    InvalidFilter: Refusal(400, "invalid_filter"),
    InvalidCredential: Refusal(401, "invalid_credential"),
    InvalidToken: Refusal(401, "invalid_token"),
    InvalidIdentity: Refusal(401, "invalid_identity"),
    NotAllowed: Refusal(403, "not_allowed"),
    NotAllowedAddress: Refusal(403, "not_allowed_address"),
    NotAllowedOrigin: Refusal(403, "not_allowed_origin"),
    PrivateKeyInBrowser: Refusal(403, "private_key_in_browser"),
    UnknownGame: Refusal(404, "unknown_game"),
    UnknownType: Refusal(404, "unknown_type"),
    CursorLost: Refusal(404, "cursor_lost"),
    NoRoundYet: Refusal(404, "no_round_yet"),
    NotFound: Refusal(404, "not_found"),
    SlowRequest: Refusal(408, "request_timeout"),
    TooLarge: Refusal(413, "too_large"),
    WrongMediaType: Refusal(415, "unsupported_media_type"),
    Misdirected: Refusal(421, "misdirected"),
    NeedsUpgrade: Refusal(426, "upgrade_required"),
    TooManyRequests: Refusal(429, "rate_limited"),
    Unsupported: Refusal(501, "unsupported"),
    Unavailable: Refusal(503, "unavailable"),
    KeysUnavailable: Refusal(503, "key_store_unavailable"),
    IdentityUnavailable: Refusal(503, "identity_unavailable"),
    LogUnavailable: Refusal(503, "log_unavailable"),
}
"""For users: docs/errors.md."""


def refusal_of(error: Exception) -> Refusal | None:
    """Return the refusal that a client gets for `error`; None when the error is a bug."""
    for kind in type(error).__mro__:
        if kind in REFUSALS:
            return REFUSALS[kind]
    return None
