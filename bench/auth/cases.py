"""What is measured: each case is a request, the status that it gets, and the case that its cost is compared with.

Each slice makes its requests again, so that tokens are fresh.
"""

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from auth.signing.compact import encoded


class Credentials(NamedTuple):
    """What a running relay accepts, or a token that a bare server selects."""

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request."""

    make: Callable[[Credentials], bytes]
    status: int
    connection: bool = False
    """Whether each request is on a connection of its own, as a handshake is."""
    bare: bool = False
    """Whether a server of nothing but aiohttp answers it, and not the relay."""


class Bound(NamedTuple):
    """A target: the work of `case` per CPU-second is at least `ratio` of that of `other`."""

    case: str
    other: str
    ratio: float


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request of HTTP/1.1 as bytes."""
    length = (f"Content-Length: {len(body)}",) if line.startswith("POST") else ()
    return "\r\n".join((f"{line} HTTP/1.1", "Host: x", *length, *headers, "", "")).encode() + body


def token_request(key: str) -> bytes:
    return request("POST /api/auth/token", f"X-API-Key: {key}")


def handshake(token: str) -> bytes:
    nonce = base64.b64encode(os.urandom(16)).decode()
    return request(
        "GET /ws/crash",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {nonce}",
        f"Sec-WebSocket-Protocol: {token}",
    )


def _altered(token: str) -> str:
    """Return a token with another signature: all of it has to be read and checked."""
    return f"{token.rpartition('.')[0]}.{encoded(os.urandom(32)).decode()}"


CASES: Final[Mapping[str, Case]] = {
    "token: bare handler": Case(lambda given: token_request(given.key), 200, bare=True),
    "token: good key": Case(lambda given: token_request(given.key), 200),
    "token: unknown key": Case(lambda _: token_request(f"sk_live_{secrets.token_hex(32)}"), 401),
    "token: malformed key": Case(lambda _: token_request("x" * 72), 401),
    "handshake: bare": Case(lambda given: handshake(given.token), 101, connection=True, bare=True),
    "handshake: good token": Case(lambda given: handshake(given.token), 101, connection=True),
    "handshake: forged token": Case(lambda given: handshake(_altered(given.token)), 401, connection=True),
}

BOUNDS: Final = (
    Bound("token: good key", "token: bare handler", 0.6),
    Bound("handshake: good token", "handshake: bare", 0.6),
    Bound("token: unknown key", "token: good key", 2.0),
    Bound("token: malformed key", "token: good key", 2.0),
    Bound("handshake: forged token", "handshake: good token", 2.0),
)
"""Refusing costs less than half of admitting: at least twice as many per CPU-second."""
