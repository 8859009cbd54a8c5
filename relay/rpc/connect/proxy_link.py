"""Links of the gRPC service over plain HTTP: prepared bytes, written to the transport as SSE links do.

Owns when bytes may be written: after the response's headers. Their encoding is in `relay.rpc.connect.dialect`.
"""

import asyncio
from collections.abc import Mapping

from aiohttp import HttpVersion11, web

from relay.history.start import Start
from relay.live.closed import CLOSED
from relay.live.encode import chunk
from relay.live.hub import Hub
from relay.live.link import Disconnect, LinkEnder
from relay.rpc.connect.buffer_sink import BufferSink
from relay.rpc.connect.dialect import Dialect, EnvelopedRound
from relay.rpc.rpc_link import RpcLink
from relay.rpc.status import Metadata, metadata_of, status_of_disconnect
from rounds import datastream_pb2 as pb


class RequestTransport:
    """The transport of a request; when aiohttp has lost the connection, one that does nothing."""

    def __init__(self, request: web.Request) -> None:
        self._request = request

    @property
    def _transport(self) -> asyncio.Transport:
        return self._request.transport or CLOSED

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()


class ProxyLink(RpcLink):
    """A stream over plain HTTP. Bytes written before `open` are buffered until the response's headers are sent."""

    __slots__ = ("_chunked", "_dialect", "hello")

    def __init__(
        self,
        hub: Hub,
        request: web.Request,
        dialect: Dialect,
        ender: LinkEnder,
        *,
        max_age_s: float,
        allow_gap: bool = False,
    ) -> None:
        self._dialect = dialect
        self._chunked = request.version >= HttpVersion11
        form = EnvelopedRound(dialect, self._chunked)

        async def drained() -> None:
            # All that wait share a future of aiohttp: one that gives up would cancel it for those that wait later.
            await asyncio.shield(request.writer.drain())

        super().__init__(hub, BufferSink(), form, ender, max_age_s=max_age_s, drain=drained, allow_gap=allow_gap)
        self.hello: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        """The hello event, which becomes initial metadata; empty when the stream ended before it."""

    async def initial_metadata(self, start: Start) -> Metadata:
        """Return the metadata to send before the first round: whether rounds are missing, or a live stream's cursor.

        For a stream that starts live, call this before the event loop runs anything else.
        """
        if start.is_live:  # the client has a cursor even when the stream ends before a round matches
            return (("head-cursor", str(self._hub.head)),)
        return metadata_of(await self.hello) if start.receives_events else ()

    def send_hello(self, event: Mapping[str, object]) -> None:
        if not self.hello.done():
            self.hello.set_result(event)

    def open(self, request: web.Request) -> None:
        """Write what was collected; from now on, write to the connection of `request`."""
        buffer, self.transport = self.transport, RequestTransport(request)
        if isinstance(buffer, BufferSink) and buffer.data:
            self.transport.write(bytes(buffer.data))

    def write(self, element: bytes) -> None:
        """Write one element of the stream."""
        self.transport.write(chunk(element) if self._chunked else element)

    def write_message(self, message: pb.Round) -> None:
        self.write(self._dialect.wrap(self._dialect.answers.message(message)))

    def write_disconnect(self, disconnect: Disconnect) -> None:
        self.send_hello({})
        super().write_disconnect(disconnect)
        self.write(self._dialect.end(self.status or status_of_disconnect(disconnect)))
