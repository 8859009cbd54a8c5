"""Serve a stream of HTTP/2 by the handlers of HTTP/1.1: the same paths, limits, refusals and links.

Owns the bytes of the request on their way, and that a connection is kept while a stream of it has shown a credential.
"""

from collections.abc import Callable
from typing import Final

from relay.http.connections.guarded import GuardedHandler
from relay.http.over_http2.http1_answer import Http1Answer
from relay.http.over_http2.http1_request import Http1Request, NotHttp1
from relay.http.over_http2.stream_transport import StreamTransport
from relay.http.protocol import HttpProtocol
from relay.http2 import HeaderFields, Http2Code, Http2Stream, StreamReceiver
from relay.links.intake import Intake

Bridge = Callable[[Http2Stream, HeaderFields], StreamReceiver]
_LAST_CHUNK: Final = b"0\r\n\r\n"


class StreamHandler(HttpProtocol):
    """Handles the request of one stream."""

    __slots__ = ("_stream",)

    def __init__(self, connection: HttpProtocol, stream: Http2Stream) -> None:
        """Handle as `connection` does."""
        super().__init__(**connection.made_of)
        self._may_be_http2 = False
        self._stream = stream

    def credential_accepted(self) -> bool:
        return super().credential_accepted() and self._stream.credential_accepted()

    def became_link(self) -> None:
        super().became_link()
        self._stream.became_link()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if not self._stream.is_closing():  # a link has taken it over
            self._stream.became_link()

    def held_bytes(self) -> int:
        # Not what the kernel has: the connection has other streams.
        return 0 if self.transport is None else self._request_bytes + self._stream.queued_bytes


def bridge_of(connection: GuardedHandler) -> Bridge:
    """Return what serves the streams of a connection that `connection` has begun to read."""
    if not isinstance(connection, HttpProtocol):
        raise TypeError(type(connection))

    def begin(stream: Http2Stream, headers: HeaderFields) -> StreamReceiver:
        try:
            request = Http1Request.of(headers, has_body=not stream.is_request_complete)
        except NotHttp1:
            stream.reset(Http2Code.PROTOCOL_ERROR)
            return _OVER
        handler = StreamHandler(connection, stream)
        return _Upload(StreamTransport(stream, Http1Answer(has_body=request.has_answer_body)), handler, request)

    return begin


class _Upload:
    """Gives a handler the bytes of its request."""

    __slots__ = ("_intake", "_is_chunked", "_transport")

    def __init__(self, transport: StreamTransport, handler: StreamHandler, request: Http1Request) -> None:
        self._transport = transport
        self._is_chunked = request.is_chunked
        self._intake = Intake(handler.turns, handler)
        transport.begin(self._intake)
        self._intake.take(request.head)

    def data(self, data: bytes, ended: bool) -> None:
        if self._transport.is_closing():
            return
        if self._is_chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data = chunk + _LAST_CHUNK if ended else chunk
        if data:
            self._intake.take(data)

    def lost(self, code: int | None) -> None:
        self._transport.lose(ConnectionResetError("the client has reset its stream"))


class _Over:
    """The receiver of a stream that was refused."""

    def data(self, data: bytes, ended: bool) -> None:
        """Ignore it."""

    def lost(self, code: int | None) -> None:
        """Do nothing."""


_OVER: Final = _Over()
