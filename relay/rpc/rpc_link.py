"""Links of the gRPC service: events become metadata, a disconnect becomes a status.

Owns what the streams of gRPC and of the HTTP proxy have in common, and `GrpcLink`, which passes messages to its
handler through a sink. Does not know calls. Links of the HTTP proxy are in `relay.rpc.connect.proxy_link`.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace

from relay.history.start import Start
from relay.live.encode import Form
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, Drain, Link, LinkEnder, Sink
from relay.rpc.convert import gap_message
from relay.rpc.sink import MessageSink
from relay.rpc.status import Metadata, Status, metadata_of, status_of_disconnect, status_of_gap
from relay.rpc.wire import MessageBatch, ProtobufRound
from rounds import datastream_pb2 as pb


class RpcLink(Link):
    """A stream of the service: initial metadata has the state of history, a message or the status reports a gap."""

    __slots__ = ("_allow_gap", "_closed", "_hub", "gap", "hello")

    def __init__(
        self,
        hub: Hub,
        sink: Sink,
        form: Form,
        ender: LinkEnder,
        *,
        max_age_s: float,
        drain: Drain,
        allow_gap: bool = False,
    ) -> None:
        super().__init__(sink, form, ender, max_age_s=max_age_s, drain=drain)
        self.hello: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        """The hello event, which becomes initial metadata; empty when the stream ended before it."""
        self.gap: Mapping[str, object] | None = None
        """The gap event that ended the stream."""
        self._hub = hub
        self._allow_gap = allow_gap
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def initial_metadata(self, start: Start) -> Metadata:
        """Return the metadata to send before the first round: whether rounds are missing, or a live stream's cursor.

        For a stream that starts live, call this before the event loop runs anything else.
        """
        if start.is_live:  # the client has a cursor even when the stream ends before a round matches
            return (("head-cursor", str(self._hub.head)),)
        return metadata_of(await self.hello) if start.receives_events else ()

    def heartbeat(self) -> bool:
        """Write a heartbeat if the client asked for it, and nothing waits for the client."""
        if self.heartbeat_s is not None and not self.transport.get_write_buffer_size():
            cursor = None if self.cursor is None else self.cursor()
            self.write_message(pb.Round(cursor="" if cursor is None else str(cursor)))
        return True  # HTTP/2 pings, or TCP_USER_TIMEOUT, find a dead peer

    def send_event(self, event: Mapping[str, object]) -> None:
        if event["event"] == "hello":
            if not self.hello.done():
                self.hello.set_result(event)
        elif self._allow_gap:
            self.write_message(gap_message(event))
        elif self.ended is None:
            self.gap = event
            self.end(CloseReason.GAP)

    @abstractmethod
    def write_message(self, message: pb.Round) -> None:
        """Write a message that is not a round, for this client alone."""

    def write_disconnect(self, disconnect: Disconnect) -> None:
        if not self.hello.done():
            self.hello.set_result({})
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_ended(self, *, within_s: float | None = None) -> None:
        """Wait until we have ended the link, at most `within_s` seconds. A client that leaves cancels the wait."""
        await asyncio.wait((self._closed,), timeout=within_s)

    @property
    def status(self) -> Status | None:
        """The status of the stream; None while we have not ended it."""
        if self.ended is None:
            return None
        if self.gap is not None:
            return status_of_gap(self.gap, self._hub.bounds, self.ended)
        return status_of_disconnect(self.ended)


class GrpcLink(RpcLink):
    """A stream over HTTP/2. Its handler sends the messages of `sink`, and then `status`."""

    __slots__ = ("sink",)

    def __init__(
        self, hub: Hub, cancel: Callable[[], object], ender: LinkEnder, *, max_age_s: float, allow_gap: bool = False
    ) -> None:
        """`cancel` ends the call at once and drops unsent messages."""
        self.sink = MessageSink(cancel)
        form, drain = ProtobufRound(), self.sink.drained
        super().__init__(hub, self.sink, form, ender, max_age_s=max_age_s, drain=drain, allow_gap=allow_gap)

    def write_message(self, message: pb.Round) -> None:
        data = message.SerializeToString()
        self.sink.write(MessageBatch((data,), len(data)))

    def write_disconnect(self, disconnect: Disconnect) -> None:
        super().write_disconnect(disconnect)
        self.sink.close()

    @property
    def status(self) -> Status | None:
        if self.ended is not None and self.sink.is_aborted and self.sink.has_unsent:
            return status_of_disconnect(replace(self.ended, cursor=None))  # the cursor is after dropped messages
        return super().status
