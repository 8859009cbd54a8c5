"""One HTTP/1.1 connection before it becomes a link: the limits of its heads, and its answer to malformed requests.

Owns what aiohttp has no options for. Bytes that are not HTTP get the contract's error body and no traceback in the log.
A client that has closed its sending side is answered. Deadlines and shares are in `relay.http.connections.guarded`, the
time after the last answer in `relay.http.connections.lingering`.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Self

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from relay.http.connections.departures import has_left
from relay.http.connections.guarded import ConnectionLimits, GuardedHandler, is_unwanted
from relay.http.connections.lingering import linger
from relay.http.error_body import HTTP_CODES, error_response, internal_error
from relay.links.intake import Intake
from relay.turns import Turns

log = structlog.get_logger()

_LINE_BYTES: Final = 8190
"""The longest URL, and the longest header: aiohttp's own default."""
_HEADERS: Final = 128
_HEAD_BYTES: Final = 64 << 10
"""The largest head of a request. Those of browsers have 1 kB, with large cookies 16 kB."""

INTERNALS: Final = (
    "_buffer_paused",
    "_current_request",
    "_message_tail",
    "_messages",
    "_reading_paused",
    "_request_count",
    "_waiter",
    "close",
    "finish_response",
)
"""Attributes of aiohttp's handler that are used here, and not documented for this use; see `relay.http.takeover`."""

_UNKNOWN_METHOD: Final = re.compile(r"b'([A-Z]{1,24}) [^ ]+ HTTP/1\.[01]'")
"""In aiohttp's text of the error: a request line with a method that it does not know."""


class _Malformed(NamedTuple):
    """The answer to a request that could not be parsed."""

    status: int
    code: str
    sentence: str

    @classmethod
    def too_large(cls, status: int, what: str) -> Self:
        return cls(status, HTTP_CODES[status], f"{what}, which is the limit")


_URL_TOO_LONG: Final = _Malformed.too_large(414, f"the URL has more than {_LINE_BYTES} bytes")
_HEADER_TOO_LONG: Final = _Malformed.too_large(431, f"a header has more than {_LINE_BYTES} bytes")
_TOO_MANY_HEADERS: Final = _Malformed.too_large(431, f"the request has more than {_HEADERS} headers")
_HEAD_TOO_LARGE: Final = _Malformed.too_large(431, f"the head of the request has more than {_HEAD_BYTES} bytes")


class HttpProtocol(GuardedHandler):
    """A connection of the HTTP server. Built by the event loop, one per accepted connection."""

    __slots__ = (
        "_half_closed",
        "_head_bytes",
        "_is_last",
        "_line_is_over",
        "_newest_body",
    )

    def __init__(self, server: web.Server, turns: Turns, limits: ConnectionLimits, *, keepalive_s: float) -> None:
        """Wait for requests.

        Args:
            server: Handles them.
            turns: The share of each turn of the loop that requests have.
            limits: What the client may hold.
            keepalive_s: Seconds that the connection may be idle between two requests.
        """
        super().__init__(
            server,
            limits,
            turns,
            loop=asyncio.get_running_loop(),
            access_log=None,  # aiohttp's value for off
            keepalive_timeout=keepalive_s,
            auto_decompress=False,  # the proxy decompresses bodies, with its own limit and errors
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_HEADERS,
        )
        self._head_bytes = 0  # read of a head that is not whole
        self._line_is_over = False  # its first line was whole before the piece that was read last
        self._newest_body: Any = None  # of the request that was parsed last
        self._half_closed = False
        self._is_last = False

    @property
    def holds_reading(self) -> bool:
        return self._reading_paused or self._buffer_paused

    @property
    def tail(self) -> bytes:
        """What the client sent after its handshake, before the answer."""
        return self._message_tail

    def answer_is_last(self) -> None:
        """Close the connection after the next answer, as `linger` does."""
        self._is_last = True

    def data_received(self, data: bytes) -> None:
        in_head = self._is_idle
        if in_head and not self._head_bytes:
            self._line_is_over = False
        super().data_received(data)
        if self._messages:  # whole requests, or an error
            self.request_arrived()
            self._newest_body = self._messages[-1][1]
            self._head_bytes = 0
        elif in_head:
            self._line_is_over = self._line_is_over or b"\n" in data
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES and self.transport is not None:
                self._refuse_head(self.transport)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp closes the connection
        """Keep the connection until all whole requests are answered.

        Not one whose answer has been sent so far as there is any: the client of a stream has left.
        """
        if self._is_idle or self._is_streaming or not (self._newest_body is None or self._newest_body.is_eof()):
            return False
        self._half_closed = True
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write an answer; those that aiohttp made itself get the error body."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = _in_error_body(resp)
        finished = await self.turns.measured(super().finish_response(request, resp, start_time))
        if self._half_closed and not self._messages:
            self.close()
        if (self._is_last or is_unwanted(request)) and self.transport is not None:
            linger(self, self.transport)
        return finished

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer bytes that aiohttp could not parse; logged at debug level, since any client can send such bytes."""
        if exc is not None and has_left(request, exc):
            log.debug("client_left", path=request.path[:200])
            raise ConnectionResetError("the client has left") from exc  # aiohttp then ends the connection
        if status >= 500:
            log.error("request_failed", exc_info=exc)
            response = internal_error()
        else:
            malformed = _malformed(exc, in_first_line=not self._line_is_over)
            log.debug("request_malformed", status=malformed.status)
            response = error_response(*malformed)
            self.answer_is_last()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has been started")
        response.headers["Server"] = "stream-relay"
        response.force_close()
        return response

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being handled, or waits for that."""
        if self._messages:
            return False
        waits = self._waiter is not None and not self._waiter.done()
        return waits or not self._request_count

    @property
    def _is_streaming(self) -> bool:
        """Whether an answer has been begun, and all there is of it was sent."""
        request, transport = self._current_request, self.transport
        begun = request is not None and request.writer.output_size > 0
        return begun and transport is not None and not transport.get_write_buffer_size()

    def _refuse_head(self, transport: asyncio.Transport) -> None:
        response = error_response(*_HEAD_TOO_LARGE)
        log.debug("request_malformed", status=response.status)
        body = response.body
        lines = [
            f"HTTP/1.1 {response.status} {response.reason}",
            f"Content-Type: {response.headers['Content-Type']}",
            f"Content-Length: {len(body)}",  # type: ignore[arg-type]  # bytes, as for every error
            "Connection: close",
            "Server: stream-relay",
            "",
            "",
        ]
        transport.write("\r\n".join(lines).encode("latin-1") + body)  # type: ignore[operator]
        linger(self, transport)


def protocol_factory(runner: web.AppRunner, limits: ConnectionLimits, turns: Turns, *, keepalive_s: float) -> Any:
    """Return a factory for the protocols of connections, of a runner that has been set up."""
    server = runner.server
    if server is None:
        raise AssertionError("the runner has been set up")
    return lambda: Intake(turns, HttpProtocol(server, turns, limits, keepalive_s=keepalive_s))


def _malformed(error: BaseException | None, *, in_first_line: bool) -> _Malformed:
    """Return the answer to a request that aiohttp's parser refused."""
    text = str(getattr(error, "message", ""))
    if isinstance(error, LineTooLong):
        return _URL_TOO_LONG if in_first_line else _HEADER_TOO_LONG
    if "Too many headers" in text:
        return _TOO_MANY_HEADERS
    if isinstance(error, BadHttpMethod) and (method := _UNKNOWN_METHOD.search(text)):
        return _Malformed(501, "unsupported", f"method {method[1]} is not supported")
    if "'Host'" in text:
        return _Malformed(400, "bad_request", "a request must have one Host header")
    return _Malformed(400, "bad_request", "the request is not well-formed HTTP/1.1")


def _in_error_body(answer: web.HTTPException) -> web.Response:
    if answer.status == HTTPStatus.EXPECTATION_FAILED:
        return error_response(417, HTTP_CODES[417], "the only expectation that is supported is 100-continue")
    code = HTTP_CODES.get(answer.status, "bad_request")
    return error_response(answer.status, code, (answer.text or answer.reason or "bad request").strip())
