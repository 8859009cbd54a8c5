"""What a browser is told when a page of another origin asks (Fetch standard, CORS protocol)."""

from typing import Final

from aiohttp import web

# No cookies, so credentials never travel by themselves: any page may ask, its key and origin decide.
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

_NAMED: Final = web.RequestKey("cors_origin_named", bool)


def name_origin(request: web.Request) -> None:
    """Let the answer to `request` be read by pages of its origin only: its key is for certain origins.

    Who does this says ``Vary: Origin``. Refusals are for everybody to read: a page that cannot read why it was refused
    sees a broken network, and tries again for ever.
    """
    request[_NAMED] = True


def cors_headers(request: web.Request) -> dict[str, str]:
    """Return the headers of an answer to `request`."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    return _CORS | ({"Access-Control-Allow-Origin": origin} if _NAMED in request else {})
