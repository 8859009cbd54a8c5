"""Find the credential of a request, and decide what it grants to the request's origin.

Owns the places in docs/auth.md: headers, query parameters, the WebSocket subprotocol. Pure: mappings in, values out,
for HTTP headers and gRPC metadata. Knows nothing of games or of error responses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from auth.grants import Grant
from auth.key import InvalidCredential
from auth.key_ring import KeyRing
from auth.revocations import Revocations
from auth.tokens import InvalidToken, TokenSigner, granted_by

SUBPROTOCOL: Final = "datastream.v1"
"""The name of the WebSocket subprotocol, selected instead of the token when a client offers both."""

_KEY_FIELDS: Final = ("x-api-key", "authorization")
_WS_FIELDS: Final = ("sec-websocket-protocol", *_KEY_FIELDS)
_JWT: Final = re.compile(r"\A[\w-]+\.[\w-]+\.[\w-]*\Z", re.ASCII)


class AmbiguousCredential(Exception):
    """A request carries two different credentials. Clients get 400, since either could be meant."""


class NotAllowedOrigin(Exception):
    """A public key, or a token of one, was used from an origin that it does not allow. Clients get 403."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential as found in a request, not checked yet."""

    kind: Literal["key", "token"]
    secret: str = field(repr=False)
    subprotocol: str | None = field(default=None, repr=False)
    """The subprotocol that a WebSocket handshake must select; may be the token."""


def find_key(headers: Mapping[str, str], query: Mapping[str, str], *, allow_query: bool) -> Presented | None:
    """Find an API key: ``X-API-Key``, ``Authorization: Bearer``, and with `allow_query` also ``?api_key=``.

    Args:
        headers: HTTP headers or gRPC metadata; names in any case, a repeated name as repeated items.
        query: Decoded query parameters.
        allow_query: Whether the URL may carry a key; only for protocols whose clients cannot set headers.

    Raises:
        AmbiguousCredential: Two places hold different values.
    """
    return _the_one(_keys(_given(headers, _KEY_FIELDS), query if allow_query else {}))


def find_sse_credential(headers: Mapping[str, str], query: Mapping[str, str]) -> Presented | None:
    """Find the credential of an event stream: a key as in `find_key`, query included, or ``?token=``.

    Raises:
        AmbiguousCredential: Two places hold different values.
    """
    tokens = [Presented("token", value) for value in _values(query, "token")]
    return _the_one(_keys(_given(headers, _KEY_FIELDS), query) + tokens)


def find_ws_credential(headers: Mapping[str, str], query: Mapping[str, str]) -> Presented | None:
    """Find the credential of a WebSocket handshake, and the subprotocol to select.

    A token is one of the offered subprotocols, or in ``?token=`` for clients that cannot offer any. Clients that can
    set headers may send their key instead, as in `find_key`, but never in the URL. The subprotocol to select is
    `SUBPROTOCOL` when offered, else the offered token, else none.

    Raises:
        AmbiguousCredential: Two places hold different values.
    """
    given = _given(headers, _WS_FIELDS)
    offered = [name.strip() for line in given.get("sec-websocket-protocol", ()) for name in line.split(",")]
    others = [name for name in offered if name and name != SUBPROTOCOL]
    if len(others) == len(given) == 1 and not query and _JWT.match(others[0]):  # what nearly all clients send
        return Presented("token", others[0], SUBPROTOCOL if SUBPROTOCOL in offered else others[0])
    found = _keys(given, {}) + [Presented("token", value) for value in _values(query, "token")]
    # With another credential, only a value with the form of a JWT is a token. Without one, the first value is taken as
    # a token, so that a broken token is reported as malformed and not as missing.
    tokens = [name for name in others if _JWT.match(name)] or ([] if found else others[:1])
    named = SUBPROTOCOL if SUBPROTOCOL in offered else None
    presented = _the_one(found + [Presented("token", token) for token in tokens])
    if presented is None:
        return None
    # What has another form is refused, and never selected: it could be no value of a header.
    return Presented(presented.kind, presented.secret, named or next(filter(_JWT.match, tokens), None))


def required(presented: Presented | None, query: Mapping[str, str], *, tokens: bool) -> Presented:
    """Return the credential; raise an error that says what to send when there is none.

    Args:
        presented: The result of one of the ``find`` functions.
        query: Decoded query parameters; when a key is among them, the error says where a key in the URL is accepted.
        tokens: Whether the endpoint also accepts a stream token.

    Raises:
        InvalidCredential: Nothing was presented.
    """
    if presented is not None:
        return presented
    send = f"send an API key in X-API-Key{', or a stream token' if tokens else ''}"
    if _values(query, "api_key"):
        raise InvalidCredential(f"a key in the URL is accepted on /sse only; {send}")
    raise InvalidCredential(f"a credential is missing; {send}")


def authorize(
    presented: Presented | None,
    keys: KeyRing,
    signer: TokenSigner,
    *,
    origin: str | None,
    revocations: Revocations | None = None,
) -> Grant:
    """Check a credential and return what it grants.

    Args:
        presented: The result of one of the ``find`` functions.
        keys: The configured keys.
        signer: Verifies tokens.
        revocations: Tokens and subjects that are refused.
        origin: The request's ``Origin`` header; None when it has none.

    Raises:
        InvalidCredential: Nothing was presented, or the key is unknown.
        InvalidToken: See `TokenSigner.verify` and `granted_by`; or the token or its subject was revoked.
        NotAllowedOrigin: The key is public and `origin` is not one of its allowed origins.
    """
    if presented is None:
        raise InvalidCredential("a credential is missing; send an API key in X-API-Key")
    if presented.kind == "token":
        token = signer.verify(presented.secret)
        if revocations is not None and revocations.refuses(token):
            raise InvalidToken("the token was revoked; it opens no connection")
        grant = granted_by(token, keys.get(token.key_id))
    else:
        key, secret = keys.recognize(presented.secret)
        grant = Grant.of(key, secret_id=secret.id)
    if not grant.allows_origin(origin):
        came_from = "without an Origin header" if origin is None else f"from origin {origin[:100]!r}"
        raise NotAllowedOrigin(f"this public key may not be used {came_from}; ask its owner to allow it")
    return grant if origin is None else replace(grant, origin=origin)


def _keys(given: Mapping[str, list[str]], query: Mapping[str, str]) -> list[Presented]:
    found = [*given.get("x-api-key", ()), *_values(query, "api_key")]
    for value in given.get("authorization", ()):
        scheme, _, credential = value.partition(" ")
        # Ignore other schemes: a proxy's Basic login may be sent along with a key.
        if scheme.lower() == "bearer" and credential.strip():
            found.append(credential.strip())
    return [Presented("key", value) for value in found]


def _given(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return all values of headers that are not blank, by names in lower case."""
    found: dict[str, list[str]] = {}
    for key, value in headers.items():
        name = key.lower()
        if name in names and (text := value.strip()):
            found.setdefault(name, []).append(text)
    return found


def _values(items: Mapping[str, str], name: str) -> list[str]:
    """Return all values of a name that are not blank. Iterates, since the look-up of a multidict finds only one."""
    return [value.strip() for key, value in items.items() if key.lower() == name and value.strip()] if items else []


def _the_one(found: list[Presented]) -> Presented | None:
    if not found:
        return None
    if any(other != found[0] for other in found[1:]):
        raise AmbiguousCredential("two different credentials in one request; send one")
    return found[0]
