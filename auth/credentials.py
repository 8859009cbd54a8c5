"""Where a request carries its credential, and what that credential grants from where.

Owns the places of docs/auth.md: headers, query parameters, the WebSocket subprotocol. Pure: mappings in, values out,
for HTTP and gRPC metadata alike. Knows nothing of games or of how a refusal looks on the wire.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from auth.keys import ANY_ORIGIN, InvalidCredential, KeyStore
from auth.tokens import Grant, TokenSigner

SUBPROTOCOL: Final = "datastream.v1"
"""The WebSocket subprotocol by name, selected instead of the token when a client offers both."""

_JWT: Final = re.compile(r"\A[\w-]+\.[\w-]+\.[\w-]*\Z", re.ASCII)


class AmbiguousCredential(Exception):
    """A request carries two different credentials. Clients get 400: which one is meant is not ours to guess."""


class NotAllowedOrigin(Exception):
    """A public key, or a token made from one, came from an origin that is not its own. Clients get 403."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential as found in a request; nothing about it has been checked."""

    kind: Literal["key", "token"]
    secret: str = field(repr=False)
    subprotocol: str | None = field(
        default=None, repr=False
    )  # what a WebSocket handshake must select; may be the token


def find_key(headers: Mapping[str, str], query: Mapping[str, str], *, allow_query: bool) -> Presented | None:
    """Find an API key: ``X-API-Key``, ``Authorization: Bearer``, and with `allow_query` also ``?api_key=``.

    Args:
        headers: HTTP headers or gRPC metadata; names in any case, a repeated name as repeated items.
        query: Decoded query parameters.
        allow_query: Whether the URL may carry a key: only where a client cannot set headers.

    Raises:
        AmbiguousCredential: Two places hold different values.
    """
    return _the_one(_keys(headers, query if allow_query else {}))


def find_sse_credential(headers: Mapping[str, str], query: Mapping[str, str]) -> Presented | None:
    """Find the credential of an event stream: a key as in `find_key`, query included, or ``?token=``.

    Raises:
        AmbiguousCredential: Two places hold different values.
    """
    tokens = [Presented("token", value) for value in _values(query, "token")]
    return _the_one(_keys(headers, query) + tokens)


def find_ws_credential(headers: Mapping[str, str], query: Mapping[str, str]) -> Presented | None:
    """Find the credential of a WebSocket handshake and say which subprotocol to select.

    A token stands among the offered subprotocols, or in ``?token=`` for clients that cannot offer any. Clients that
    can set headers may send their key instead, as in `find_key`, but never in the URL. The subprotocol to select is
    `SUBPROTOCOL` when offered, else the offered token, else none.

    Raises:
        AmbiguousCredential: Two places hold different values.
    """
    offered = [name.strip() for line in _values(headers, "sec-websocket-protocol") for name in line.split(",")]
    others = [name for name in offered if name and name != SUBPROTOCOL]
    found = _keys(headers, {}) + [Presented("token", value) for value in _values(query, "token")]
    # Beside another credential only what looks like a token is one; on its own, anything is tried, so that a broken
    # token is refused as such and not as missing.
    tokens = [name for name in others if _JWT.match(name)] or ([] if found else others[:1])
    named = SUBPROTOCOL if SUBPROTOCOL in offered else None
    presented = _the_one(found + [Presented("token", token) for token in tokens])
    if presented is None:
        return None
    return Presented(presented.kind, presented.secret, named or (tokens[0] if tokens else None))


def required(presented: Presented | None, query: Mapping[str, str], *, tokens: bool) -> Presented:
    """Return what was presented, or say what to send.

    Args:
        presented: What one of the ``find`` functions returned.
        query: Decoded query parameters; a key among them is told where it would be taken.
        tokens: Whether a stream token would do as well.

    Raises:
        InvalidCredential: Nothing was presented.
    """
    if presented is not None:
        return presented
    send = f"send an API key in X-API-Key{', or a stream token' if tokens else ''}"
    if _values(query, "api_key"):
        raise InvalidCredential(f"a key in the URL is taken on /sse only; {send}")
    raise InvalidCredential(f"a credential is missing; {send}")


def authorize(presented: Presented | None, keys: KeyStore, signer: TokenSigner, *, origin: str | None) -> Grant:
    """Turn what a request presented into what it is granted.

    Args:
        presented: What one of the ``find`` functions returned.
        keys: Who has a key.
        signer: Whose tokens count.
        origin: The request's ``Origin`` header; None when it has none.

    Raises:
        InvalidCredential: Nothing was presented, or a key that is nobody's.
        InvalidToken: See `TokenSigner.verify`.
        NotAllowedOrigin: The key is public and `origin` is not one of its own, compared exactly.
    """
    if presented is None:
        raise InvalidCredential("a credential is missing; send an API key in X-API-Key")
    if presented.kind == "token":
        grant = signer.verify(presented.secret)
    else:
        grant = Grant.of(keys.authenticate(presented.secret))
    if grant.kind == "public" and not grant.allowed_origins & {origin, ANY_ORIGIN}:
        came_from = "without an Origin header" if origin is None else f"from origin {origin[:100]!r}"
        raise NotAllowedOrigin(f"this public key may not be used {came_from}; ask its owner to allow it")
    return grant


def _keys(headers: Mapping[str, str], query: Mapping[str, str]) -> list[Presented]:
    found = _values(headers, "x-api-key") + _values(query, "api_key")
    for value in _values(headers, "authorization"):
        scheme, _, credential = value.partition(" ")
        # Other schemes are not for us: a proxy's Basic login may stand beside our key.
        if scheme.lower() == "bearer" and credential.strip():
            found.append(credential.strip())
    return [Presented("key", value) for value in found]


def _values(items: Mapping[str, str], name: str) -> list[str]:
    """All values of a name, blank ones aside. By items: a multidict's own look-up shows only the first."""
    return [value.strip() for key, value in items.items() if key.lower() == name and value.strip()]


def _the_one(found: list[Presented]) -> Presented | None:
    if not found:
        return None
    if any(other != found[0] for other in found[1:]):
        raise AmbiguousCredential("two different credentials in one request; send one")
    return found[0]
