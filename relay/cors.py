"""What a browser is told when a page of another origin asks (Fetch standard, CORS protocol)."""

from collections.abc import Mapping
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

_NOTHING: Final[Mapping[str, str]] = {}


def cors_headers(request: web.Request) -> dict[str, str]:
    """Return the headers of an answer to `request`."""
    return dict(_CORS if "Origin" in request.headers else _NOTHING)
