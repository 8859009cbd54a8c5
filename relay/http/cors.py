"""Response headers for browser pages of other origins (Fetch standard, CORS protocol)."""

import re
from collections.abc import Mapping
from typing import Final

from relay.http.early.asked import Asked
from relay.http.parameters import listed

# There are no cookies, so a browser never adds credentials: any page may send a request; key and origin decide.
CORS: Final[Mapping[str, str]] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Complete, ETag, First-Cursor, Grpc-Message, Grpc-Status, Head-Cursor, Link, "
    "Oldest-Cursor, Resume-Cursor, Retry-After, Retry-After-Ms, X-History-Complete, X-Key-Warning, "
    "X-Ratelimit-Limit, X-Ratelimit-Remaining, X-Ratelimit-Reset",
}
_ALLOWED_HEADERS: Final = (
    "Authorization, Connect-Accept-Encoding, Connect-Content-Encoding, Connect-Protocol-Version, Connect-Timeout-Ms, "
    "Content-Type, Grpc-Timeout, Last-Event-ID, X-API-Key, X-Grpc-Web, X-User-Agent"
)
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
    "Access-Control-Max-Age": "86400",
    "Vary": "Origin, Access-Control-Request-Headers",
}
_HEADER_NAMES: Final = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+([ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*\Z")
_REQUESTED_BYTES: Final = 2048
"""The longest list of requested headers that is allowed. Browsers and tracing libraries ask for a few names."""


def warning_headers(asked: Asked) -> dict[str, str]:
    """Return the header that says that a browser must not have the key that it sent, where it sent such a key."""
    if not asked.has_private_key:
        return {}
    return {"X-Key-Warning": "private key used by a web page; use a public key or a stream token there"}


def preflight_headers(asked: Asked) -> dict[str, str]:
    """Return the headers of the answer to a preflight: the headers that it asks for are allowed.

    Any header is harmless here: the relay acts only on those that it documents, and those need a key. Libraries add
    ``Cache-Control``, ``traceparent``, ``baggage`` and others by themselves.
    """
    requested = listed(asked.headers, "Access-Control-Request-Headers").strip()
    if len(requested) > _REQUESTED_BYTES or _HEADER_NAMES.match(requested) is None:
        return _PREFLIGHT | {"Access-Control-Allow-Headers": _ALLOWED_HEADERS}
    return _PREFLIGHT | {"Access-Control-Allow-Headers": f"{_ALLOWED_HEADERS}, {requested}"}


def stream_headers(asked: Asked) -> dict[str, str]:
    """Return the CORS headers of an event stream: a page may also open it with ``withCredentials``.

    A browser then sends the cookies of its user, and requires that the answer names the origin. The relay takes no
    cookies: a client that gets a stream has sent a key or a token in the request itself.
    """
    headers, origin = cors_headers(asked), asked.headers.get("Origin", "")
    if not headers or not (origin.isascii() and origin.isprintable()):
        return headers
    named = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
    return headers | named | {"Vary": "Origin"}


def cors_headers(asked: Asked) -> dict[str, str]:
    """Return the CORS headers of the answer to a request.

    Of one that `Asked.restricts_origin`, pages of its origin alone may read the answer. The caller sends
    ``Vary: Origin`` then. Refusals stay readable by all pages: a page that cannot read a refusal sees a network error,
    and retries.
    """
    origin = asked.headers.get("Origin")
    if origin is None:
        return {}
    return dict(CORS) | ({"Access-Control-Allow-Origin": origin} if asked.restricts_origin else {})
