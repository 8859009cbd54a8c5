"""One HTTP/1.1 connection before it becomes a link: its requests, one after the other, and its last answer.

Owns what aiohttp has no options for. Bytes that are not HTTP get the contract's error body, after the answers to all
requests before them, and no traceback in the log. A client that has closed its sending side is answered. Deadlines and
shares are in `relay.http.connections.guarded`, the time after the last answer in `relay.http.connections.lingering`.
"""

import asyncio
from typing import Any, Final

import structlog
from aiohttp import hdrs, web
from aiohttp.http import HttpRequestParser, RawRequestMessage

from relay.http.connections.deadlines import Deadlines
from relay.http.connections.departures import has_left
from relay.http.connections.expectations import closes_connection, hide
from relay.http.connections.guarded import ConnectionLimits, GuardedHandler
from relay.http.connections.heads import PartialHead, after_request
from relay.http.connections.lingering import leave, linger
from relay.http.connections.malformed import HEAD_BYTES, HEAD_TOO_LARGE, HEADERS, LINE_BYTES, malformed_by
from relay.http.connections.quick_refusals import TAKEN
from relay.http.error_body import error_response, internal_error
from relay.http.security_headers import add_to
from relay.http2.http2_frames import PREFACE
from relay.links.intake import Intake
from relay.turns import Turns

log = structlog.get_logger()

_PIECE_BYTES: Final = 2 << 10
"""Bytes parsed at a time of what a client sent after an upgrade that is declined."""

INTERNALS: Final = (
    "_buffer_paused",
    "_close",
    "_current_request",
    "_keepalive_handle",
    "_keepalive_timeout",
    "_max_msg_queue_size",
    "_message_tail",
    "_messages",
    "_next_keepalive_close_time",
    "_parser",
    "_process_keepalive",
    "_read_bufsize",
    "_reading_paused",
    "_resume_reading_if_drained",
    "_request_count",
    "_upgraded",
    "_waiter",
    "close",
    "finish_response",
)
"""Attributes of aiohttp's handler that are used here, and not documented for this use; see `relay.http.takeover`."""


class HttpProtocol(GuardedHandler):
    """A connection of the HTTP server. Built by the event loop, one per accepted connection."""

    __slots__ = (
        "_fails_in_line",
        "_half_closed",
        "_has_failed",
        "_head",
        "_idle",
        "_is_answered",
        "_is_chunked",
        "_may_be_http2",
        "_newest_body",
    )

    def __init__(
        self,
        server: web.Server,
        turns: Turns,
        limits: ConnectionLimits,
        *,
        keepalive_s: float,
        idle: Deadlines["HttpProtocol"],
    ) -> None:
        """Wait for requests.

        Args:
            server: Handles those that are not answered from their head.
            turns: The share of each turn of the loop that requests have.
            limits: What the client may hold.
            keepalive_s: Seconds that the connection may be idle between two requests.
            idle: Connections that have this time now, while aiohttp does not handle them.
        """
        super().__init__(
            server,
            limits,
            turns,
            access_log=None,  # aiohttp's value for off
            keepalive_timeout=keepalive_s,
        )
        self._idle = idle
        self._head: PartialHead | None = None  # as it was before an error; None: nothing was read of one
        self._newest_body: Any = None  # of the request that was parsed last
        self._is_chunked = False  # that body
        self._half_closed = False
        self._is_answered = False  # every request so far; aiohttp waits for the next one a turn later
        self._has_failed = False  # after an error no request can be found
        self._fails_in_line = True  # that error is one of the first line
        self._may_be_http2 = limits.http2 is not None  # nothing was read but what may be its begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._idle.begin(self)

    def begin_usual(self) -> None:
        """See `GuardedHandler.begin_usual`."""
        self._idle.end(self)
        self._options["loop"] = loop = asyncio.get_running_loop()
        super().begin_usual()
        # aiohttp's own parser drops the requests before an error that it finds in the same call.
        self._parser = HttpRequestParser(
            self,
            loop,
            self._read_bufsize,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            max_headers=HEADERS,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,  # the proxy decompresses bodies, with its own limit and errors
            max_msg_queue_size=1,  # it stops after each request
        )

    @property
    def made_of(self) -> dict[str, Any]:
        """The arguments that make another handler like this."""
        keepalive_s = self._options["keepalive_timeout"]
        common = {"server": self._server, "turns": self.turns, "limits": self._limits}
        return {**common, "keepalive_s": keepalive_s, "idle": self._idle}

    @property
    def holds_reading(self) -> bool:
        return self.is_usual and (self._reading_paused or self._buffer_paused)

    @property
    def tail(self) -> bytes:
        """What the client sent after its handshake, before the answer."""
        return self._message_tail if self.is_usual else b""

    def data_received(self, data: bytes) -> bool | None:  # type: ignore[override]  # see `Receiver`
        """Parse one request after the other; after an error, ignore what follows."""
        if self._may_be_http2:
            if PREFACE.startswith(data[: len(PREFACE)]):
                return self._begin_http2(data)
            self._may_be_http2 = False
        if self._has_failed or self._answer_at_once(data):
            return None
        if not self.is_usual:
            self.begin_usual()
        self._read(data)
        return None

    def _begin_http2(self, data: bytes) -> bool | None:
        """Give a connection that begins as HTTP/2 does to another receiver, with its first bytes as they are."""
        make, transport = self._limits.http2, self.transport
        intake = None if transport is None else transport.get_protocol()
        if make is None or transport is None or not isinstance(intake, Intake):
            return None
        if len(data) < len(PREFACE):
            intake.put_back(data)  # they come again, with the next ones
            return None
        leave(self)
        receiver = make(self)
        receiver.connection_made(transport)
        intake.hand_to(receiver)
        return receiver.data_received(data)

    def _answer_at_once(self, data: bytes) -> bool:
        """Answer a request of which all can be seen in its first bytes; return whether it was."""
        answers, transport = self._limits.answers, self.transport
        if answers is None or transport is None or (self.is_usual and not self._may_answer_at_once):
            return False
        if transport.get_write_buffer_size():
            return False
        answer = answers.answer(data, self)
        if answer is None:
            return False
        if answer is TAKEN:
            return True
        transport.write(answer.data)
        self.answered(len(answer.data))
        if answer.closes:
            linger(self, transport)
        else:
            self._wait_for_next()
        return True

    @property
    def _may_answer_at_once(self) -> bool:
        """Whether aiohttp waits for the next request, and has nothing of one."""
        if self._in_body or not self._is_idle or (self._head is not None and self._head.size):
            return False
        return not (self._half_closed or self._upgraded or self._close)

    def close_idle(self) -> None:
        """Close the connection, which was idle for too long."""
        if self.transport is not None:
            self.transport.close()

    def _wait_for_next(self) -> None:
        """Give the client its time for the next request, as aiohttp does after an answer."""
        if not self.is_usual:
            self._idle.begin(self)
            return
        at = self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(at, self._process_keepalive)

    def _read(self, data: bytes) -> None:
        count, in_body, read = self._request_count, self._in_body, self._body_bytes
        unparsed = data
        head = self._head = self._head or PartialHead()
        while self._parse(unparsed) and len(self._messages) < self._max_msg_queue_size:
            unparsed = b""
        if self._messages:  # whole requests, or an error
            self.request_arrived()
        if self._has_failed or not (data or in_body):  # without data, aiohttp resumes: the head is known
            return
        is_same = self._request_count == count
        if in_body or not is_same:
            head.clear()
            self.holds(0)
            if self._in_body:
                return
            body_bytes = self._body_bytes - read if is_same else self._body_bytes
            data = after_request(data, body_bytes=body_bytes, begins_in_body=in_body and is_same)
        head.add(data)
        self.holds(head.size)
        self._watch_head()
        if head.size > HEAD_BYTES:
            self._parse(b"\0")  # is allowed nowhere in a head: aiohttp gives the error its place behind all requests

    def _watch_head(self) -> None:
        # Not only when aiohttp waits for the next request: it does so a turn after an answer, and nothing may follow.
        if self._head is not None and self._head.size and (self._is_idle or self._is_answered):
            self.head_begun()

    def _parse(self, data: bytes) -> bool:
        """Parse bytes up to the end of a request; return whether there was one, so that there may be another."""
        if self._parser is None:  # the connection is lost
            return False
        count, in_body, body = self._request_count, self._in_body, self._newest_body
        self._parser.message_consumed()
        super().data_received(data)
        if self._request_count == count:
            return in_body and not self._in_body
        self._is_answered = False
        message, self._newest_body = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            if hdrs.EXPECT in message.headers:
                self._messages[-1] = (hide(message), self._newest_body)
            self._is_chunked = message.chunked
            return not self._in_body
        self._has_failed = True
        self._fails_in_line = not self._line_was_short(data)
        if in_body:  # of chunks; its request has an answer of its own
            self._messages.pop()
            body.set_exception(web.RequestPayloadError("malformed chunks"))
        return False

    def _line_was_short(self, data: bytes) -> bool:
        """Whether a head that begins before `data`, or with it, has a first line that is not too long."""
        head, end = self._head or PartialHead(), data.find(b"\n")
        return head.line_is_over or (end >= 0 and head.size + end <= LINE_BYTES)

    def _decline_upgrade(self) -> None:
        """Parse what the client sent after a request that it wanted to be its last one of HTTP.

        aiohttp would parse all of it at once.
        """
        if self._parser is None or self.transport is None:
            return
        self._parser.set_upgraded(False)
        self._upgraded = False
        tail, self._message_tail = self._message_tail, b""
        for at in range(0, len(tail), _PIECE_BYTES):
            self.data_received(tail[at : at + _PIECE_BYTES])
        if self._buffer_paused:
            self._resume_reading_if_drained()

    @property
    def _in_body(self) -> bool:
        return not (self._newest_body is None or self._newest_body.is_eof())

    @property
    def _body_bytes(self) -> int:
        """How much was read of the newest body; 0 when it comes in chunks."""
        return 0 if self._newest_body is None or self._is_chunked else self._newest_body.total_bytes

    def connection_lost(self, exc: BaseException | None) -> None:
        self._idle.end(self)
        super().connection_lost(exc)
        self._newest_body = None  # it refers to this object: both would wait for Python's garbage collector

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp closes the connection
        """Keep the connection until all whole requests are answered.

        Not one whose answer has been sent so far as there is any: the client of a stream has left.
        """
        if not self.is_usual or self._is_idle or self._is_answered or self._is_streaming or self._in_body:
            return False
        self._half_closed = True
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write an answer."""
        if self._upgraded and not self._messages:
            self._decline_upgrade()
        finished = await self.turns.measured(super().finish_response(request, resp, start_time))
        self._is_answered = not self._messages
        self._watch_head()
        if self._half_closed and self._is_answered:
            self.close()
        if (self.is_last or closes_connection(request)) and self.transport is not None:
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
            head = self._head or PartialHead()
            too_large = head.size > HEAD_BYTES
            malformed = HEAD_TOO_LARGE if too_large else malformed_by(exc, in_first_line=self._fails_in_line)
            log.debug("request_malformed", status=malformed.status)
            response = error_response(*malformed)
            self.answer_is_last()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has been started")
        response.headers["Server"] = "stream-relay"
        add_to(response.headers)
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


def protocol_factory(runner: web.AppRunner, limits: ConnectionLimits, turns: Turns, *, keepalive_s: float) -> Any:
    """Return a factory for the protocols of connections, of a runner that has been set up."""
    server = runner.server
    if server is None:
        raise AssertionError("the runner has been set up")
    idle = Deadlines(keepalive_s, HttpProtocol.close_idle)
    return lambda: Intake(turns, HttpProtocol(server, turns, limits, keepalive_s=keepalive_s, idle=idle))
