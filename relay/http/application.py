"""The aiohttp application: routes, and a middleware that makes the contract's error body of every error.

Does not know how the process starts and stops; that is `relay.serve`.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.typedefs import Middleware

from relay.admission.refusals import Refusals
from relay.config.trusted_proxies import TrustedProxies
from relay.http.connections.departures import has_left
from relay.http.connections.expectations import closes_connection, has_unknown
from relay.http.connections.guarded import GuardedHandler
from relay.http.cors import preflight_headers
from relay.http.early.answer import complete, refused
from relay.http.error_body import HTTP_CODES, error_response, internal_error
from relay.http.protocol import HttpProtocol
from relay.http.request import PROXIES, asked_of, caller_of, response_of
from relay.http.security_headers import page_headers

log = structlog.get_logger()

_VERSIONS: Final = (HttpVersion10, HttpVersion11)
_PROBES: Final = ("/healthz", "/readyz")
"""Answered at once. Behind expensive requests of clients, a platform would consider the process dead."""
_METHODS: Final = "GET, HEAD, OPTIONS, POST"

_BODY_BYTES: Final = 64 << 10
"""The largest request body; no path needs more."""

_NO_PROXIES: Final = TrustedProxies()
_REFUSALS: Final = web.AppKey("refusals", Refusals)
_FOR_PAGES: Final = web.AppKey("for_pages", bool)
_PATHS: Final = web.AppKey("paths", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(
    tables: Iterable[Iterable[web.RouteDef]],
    *,
    home: str | None,
    refusals: Refusals | None = None,
    checks: Iterable[Middleware] = (),
    for_pages: bool = True,
    proxies: TrustedProxies = _NO_PROXIES,
    paths: str = "/docs lists all paths",
) -> web.Application:
    """Build the application from the routes of its parts.

    Args:
        tables: The routes.
        home: The HTML at ``/``; None for no such page.
        refusals: Counts requests that are refused; None when nobody reads the counts.
        checks: Middlewares between the errors and the handlers; what they raise is answered as other errors are.
        for_pages: Whether pages of other origins may read the answers.
        proxies: Those that say from which address a request comes.
        paths: What the answer to an unknown path says about the known ones.
    """
    app = web.Application(middlewares=[_errors, *checks], client_max_size=_BODY_BYTES)
    app[_REFUSALS] = Refusals() if refusals is None else refusals
    app[_FOR_PAGES], app[_PATHS], app[PROXIES] = for_pages, paths, proxies
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
        self._headers = page_headers(html, connects_to="'self' http: https: ws: wss:")  # it has a field for the relay

    async def show(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._html, content_type="text/html", headers=self._headers)


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    complete(response.headers, asked_of(request), for_pages=request.app[_FOR_PAGES])
    protocol = request.protocol
    if closes_connection(request) or (isinstance(protocol, GuardedHandler) and protocol.is_last):
        response.headers["Connection"] = "close"
        response.force_close()


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with the error body; bugs of ours are logged with a traceback and answered with 500."""
    protocol = request.protocol
    if not isinstance(protocol, HttpProtocol):  # without request_arrived, it would close every connection
        raise TypeError(f"the connection is a {type(protocol).__name__}; make it with `protocol_factory`")
    protocol.request_arrived()
    if request.app[PROXIES]:
        protocol.came_for(caller_of(request).address)
    if request.path in _PROBES:
        return await _answer(request, protocol, handler)
    await protocol.turns.wait()  # many connections may have a request at the same time
    return await protocol.turns.measured(_answer(request, protocol, handler))


async def _answer(request: web.Request, protocol: HttpProtocol, handler: Handler) -> web.StreamResponse:
    if request.version not in _VERSIONS or request.method == "CONNECT":
        protocol.answer_is_last()
        return _not_http1(request)
    if has_unknown(request):
        return error_response(417, HTTP_CODES[417], "the only expectation that is supported is 100-continue")
    if request.method == "OPTIONS" and request.app[_FOR_PAGES]:
        # A preflight has no key: its answer is the same on every path.
        return web.Response(status=204, headers=preflight_headers(asked_of(request)))
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return error_response(
            error.status, HTTP_CODES.get(error.status, "bad_request"), _sentence(request, error), headers
        )
    except Exception as error:
        if has_left(request, error):
            raise ConnectionResetError("the client has left") from error
        if isinstance(error, web.RequestPayloadError):
            return error_response(400, "bad_request", "the request's body does not match its headers")
        answer = refused(asked_of(request), error, request.app[_REFUSALS])
        if answer is None:
            log.exception("request_failed", method=request.method, path=request.path[:200])
            return internal_error()
        return response_of(answer)


def _not_http1(request: web.Request) -> web.Response:
    """Refuse what is no request of HTTP/1.0 or 1.1 to this server."""
    if request.method == "CONNECT":
        return error_response(405, HTTP_CODES[405], "this server is not a proxy", {"Allow": _METHODS})
    return error_response(505, HTTP_CODES[505], "this port serves HTTP/1.1 and HTTP/1.0")


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"there is no path {request.path[:100]!r}; {request.app[_PATHS]}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not allowed here; allowed: {', '.join(sorted(error.allowed_methods))}"
    return (error.text or error.reason or "bad request").strip()
