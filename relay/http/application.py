"""The aiohttp application: routes, and one place where every error becomes the contract's error body.

Knows nothing of how the process is started or stopped; that is `relay.serve`.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
from aiohttp import web

from relay.errors import Unavailable, refusal_of
from relay.http.cors import PREFLIGHT, cors_headers
from relay.http.error_body import error_response
from relay.http.protocol import HttpProtocol

log = structlog.get_logger()

_BODY_BYTES: Final = 64 << 10
"""No request of ours has a body worth mentioning."""


_HEADERS: Final = {
    401: {"WWW-Authenticate": "Bearer"},
    426: {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    503: {"Retry-After": "1"},
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def build_app(tables: Iterable[Iterable[web.RouteDef]], *, home: str | None) -> web.Application:
    """Build the application from the routes of its parts; `home` is the HTML at ``/``, None for no such page."""
    app = web.Application(middlewares=[_errors], client_max_size=_BODY_BYTES)
    app.on_response_prepare.append(_finish_headers)
    for table in tables:
        app.add_routes(table)
    if home is not None:
        app.router.add_get("/", Home(home).show)
    return app


class Home:
    """The page at ``/``."""

    def __init__(self, html: str) -> None:
        self._html = html

    async def show(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._html, content_type="text/html")


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "stream-relay"  # not which versions of what
    response.headers.update(cors_headers(request))


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with one sentence; what is a bug of ours is logged whole and told as 500."""
    if isinstance(request.protocol, HttpProtocol):
        request.protocol.request_arrived()
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=PREFLIGHT)  # a preflight carries no key: it is the same everywhere
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return error_response(
            error.status, HTTP_CODES.get(error.status, "bad_request"), _sentence(request, error), headers
        )
    except ConnectionResetError:
        raise  # the client is gone: nobody to tell
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None:
            log.exception("request_failed", method=request.method, path=request.path)
            return error_response(500, "internal", "internal error; it has been logged")
        return error_response(refusal.status, refusal.code, str(error), _headers_of(error, refusal.status))


def _headers_of(error: Exception, status: int) -> dict[str, str] | None:
    """Say in headers what a client should do next, where HTTP has one for it."""
    if isinstance(error, Unavailable):
        return {"Retry-After": str(-(-error.retry_ms // 1000))}
    return _HEADERS.get(status)


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"nothing is at {request.path[:100]!r}; what there is is shown at /docs"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not allowed here; allowed: {', '.join(sorted(error.allowed_methods))}"
    return (error.text or error.reason or "bad request").strip()
