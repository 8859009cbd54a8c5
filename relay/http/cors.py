"""Response headers for browser pages of other origins (Fetch standard, CORS protocol)."""

from typing import Final

from aiohttp import web

# There are no cookies, so a browser never adds credentials: any page may send a request; key and origin decide.
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Complete, ETag, First-Cursor, Grpc-Message, Grpc-Status, Head-Cursor, Link, "
    "Resume-Cursor, Retry-After, Retry-After-Ms, X-History-Complete",
}
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Connect-Accept-Encoding, Connect-Content-Encoding, "
    "Connect-Protocol-Version, Connect-Timeout-Ms, Content-Type, Grpc-Timeout, Last-Event-ID, X-API-Key, X-Grpc-Web, "
    "X-User-Agent",
    "Access-Control-Max-Age": "86400",
}

_RESTRICTED: Final = web.RequestKey("cors_origin_restricted", bool)


def restrict_origin(request: web.Request) -> None:
    """Make the answer to `request` readable by pages of its origin only: its key is for certain origins.

    The caller sends ``Vary: Origin``. Refusals stay readable by all pages: a page that cannot read a refusal sees a
    network error, and retries.
    """
    request[_RESTRICTED] = True


def cors_headers(request: web.Request) -> dict[str, str]:
    """Return the CORS headers of the answer to `request`."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    return _CORS | ({"Access-Control-Allow-Origin": origin} if _RESTRICTED in request else {})
