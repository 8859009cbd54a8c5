"""One HTTP/1.1 connection before it becomes a link: its deadlines, and its answer to malformed requests.

Owns what aiohttp has no options for: bytes that are not HTTP get the contract's error body and no traceback in the
log, and a client that never finishes its first request does not keep its connection.
"""

import asyncio
from typing import Any, Final

import structlog
from aiohttp import web

from relay.http.error_body import error_response, internal_error

log = structlog.get_logger()

_KEEPALIVE_S: Final = 75.0
"""Idle time between two requests on a connection: longer than a load balancer's, so that the balancer closes first."""


class HttpProtocol(web.RequestHandler):
    """A connection of the HTTP server. Built by the event loop, one per accepted connection."""

    __slots__ = ("_deadline", "_request_s")

    def __init__(self, server: web.Server, *, request_s: float) -> None:
        """`request_s`: seconds until a new connection must have sent the head of its first request."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's value for off
            keepalive_timeout=_KEEPALIVE_S,
            auto_decompress=False,  # the proxy decompresses bodies, with its own limit and errors
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
        """Cancel the deadline: the first request has been read."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer bytes that aiohttp could not parse; logged at debug level, since any client can send such bytes."""
        if status >= 500:
            log.error("request_failed", exc_info=exc)
            response = internal_error()
        else:
            log.debug("request_malformed", status=status)
            response = error_response(status, "bad_request", "the request is not well-formed HTTP/1.1")
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has been started")
        response.headers["Server"] = "stream-relay"
        response.force_close()
        return response


def protocol_factory(runner: web.AppRunner, *, request_s: float) -> Any:
    """Return a protocol factory for ``loop.create_server``, of a runner that has been set up."""
    server = runner.server
    if server is None:
        raise AssertionError("the runner has been set up")
    return lambda: HttpProtocol(server, request_s=request_s)
