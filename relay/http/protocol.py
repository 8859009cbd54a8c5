"""One HTTP/1.1 connection before it has become a link: what it may take its time for, and what it is told.

Owns what aiohttp leaves to its own defaults: that bytes which are no HTTP get the contract's error body and no
traceback in the log, and that a client which never finishes a request does not hold a connection for ever.
"""

import asyncio
from typing import Any, Final

import structlog
from aiohttp import web

from relay.http.error_body import error_response

log = structlog.get_logger()

_KEEPALIVE_S: Final = 75.0
"""Idle time between two requests on a connection: longer than a load balancer's, which must be the one that closes."""


class HttpProtocol(web.RequestHandler):
    """A connection of the HTTP server. Built by the event loop, one per accepted connection."""

    __slots__ = ("_deadline", "_request_s")

    def __init__(self, server: web.Server, *, request_s: float) -> None:
        """`request_s`: seconds that a new connection has for the head of its first request."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say off
            keepalive_timeout=_KEEPALIVE_S,
            auto_decompress=False,  # who takes a body unpacks it, within its own limit and with its own errors
        )
        self._request_s = request_s
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(self._request_s, transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.request_arrived()
        super().connection_lost(exc)

    def request_arrived(self) -> None:
        """Lift the deadline: the client has said what it wants."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what aiohttp could not make a request of. Anybody can send that, so it is no event to log loudly."""
        if status >= 500:
            log.error("request_failed", exc_info=exc)
            response = error_response(500, "internal", "internal error; it has been logged")
        else:
            log.debug("request_malformed", status=status)
            response = error_response(status, "bad_request", "the request is not well-formed HTTP/1.1")
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        response.headers["Server"] = "stream-relay"
        response.force_close()
        return response


def protocol_factory(runner: web.AppRunner, *, request_s: float) -> Any:
    """Make connections of a runner that has been set up; for ``loop.create_server``."""
    server = runner.server
    if server is None:
        raise AssertionError("the runner has been set up")
    return lambda: HttpProtocol(server, request_s=request_s)
