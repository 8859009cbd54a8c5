"""Links of the service: events become metadata or messages, a disconnect becomes a status.

Owns what the streams of gRPC and of the HTTP proxy have in common. Does not know how they are written: see
`relay.rpc.grpc_link` and `relay.rpc.connect.proxy_link`.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Mapping

from relay.live.encode import Form
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, Drain, Link, LinkEnder, Sink
from relay.rpc.convert import gap_message
from relay.rpc.status import Status, status_of_disconnect, status_of_gap
from rounds import datastream_pb2 as pb


class RpcLink(Link):
    """A stream of the service: initial metadata has the state of history, a message or the status reports a gap."""

    __slots__ = ("_allow_gap", "_closed", "_gap", "_hub")

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
        self._gap: Mapping[str, object] | None = None  # the event that ended the stream
        self._hub = hub
        self._allow_gap = allow_gap
        self._closed: asyncio.Future[None] | None = None  # while somebody waits for the end

    def heartbeat(self) -> bool:
        """Write a heartbeat if the client asked for it, and nothing waits for the client."""
        if self.heartbeat_s is not None and not self.transport.get_write_buffer_size():
            cursor = None if self.cursor is None else self.cursor()
            self.write_message(pb.Round(cursor="" if cursor is None else str(cursor)))
        return True  # HTTP/2 pings, or TCP_USER_TIMEOUT, find a dead peer

    def send_event(self, event: Mapping[str, object]) -> None:
        if event["event"] == "hello":
            self.send_hello(event)
        elif self._allow_gap:
            self.write_message(gap_message(event))
        elif self.ended is None:
            self._gap = event
            self.end(CloseReason.GAP)

    @abstractmethod
    def send_hello(self, event: Mapping[str, object]) -> None:
        """Send a hello event as initial metadata, unless that was sent."""

    @abstractmethod
    def write_message(self, message: pb.Round) -> None:
        """Write a message that is not a round, for this client alone."""

    def write_disconnect(self, disconnect: Disconnect) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    async def wait_ended(self, *, within_s: float | None = None) -> None:
        """Wait until we have ended the link, at most `within_s` seconds. A client that leaves cancels the wait."""
        if self.ended is not None:
            return
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._closed,), timeout=within_s)

    @property
    def status(self) -> Status | None:
        """The status of the stream; None while we have not ended it."""
        if self.ended is None:
            return None
        if self._gap is not None:
            return status_of_gap(self._gap, self._hub.bounds, self.ended)
        return status_of_disconnect(self.ended)
