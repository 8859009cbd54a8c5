"""Links of the gRPC service as the hub sees them: events become metadata, an end becomes a status.

Owns what the streams of gRPC and of the HTTP proxy have in common, and `GrpcLink`, which hands messages to its handler
through a sink. Does not know calls. Links of the HTTP proxy are in `relay.rpc.connect.link`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from relay.history.start import Start
from relay.live.encode import Form
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, Drain, Link, LinkEnder, Sink
from relay.rpc.convert import gap_message
from relay.rpc.sink import MessageSink
from relay.rpc.status import Ending, Metadata, ending_of_gap, ending_of_goodbye, metadata_of
from relay.rpc.wire import Messages, ProtobufRound


class RpcLink(Link):
    """A stream of the service. Metadata has the state of its history; a message or the end tells of lost rounds."""

    __slots__ = ("_allow_gap", "_hub", "_over", "hello", "lost")

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
        """The hello event, which the client gets as metadata; empty when the stream ended before."""
        self.lost: Mapping[str, object] | None = None
        """The gap that ended the stream."""
        self._hub = hub
        self._allow_gap = allow_gap
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begun(self, start: Start) -> Metadata:
        """Return the metadata before the first round: whether rounds are missing, or the cursor of a live stream.

        For a stream that is live at once, call this in the loop turn of its start.
        """
        if start.is_live:  # the client then has a cursor when the stream ends before a round matches
            return (("head-cursor", str(self._hub.head)),)
        return metadata_of(await self.hello) if start.receives_events else ()

    def heartbeat(self) -> bool:
        return True

    def send_event(self, event: Mapping[str, object]) -> None:
        if event["event"] == "hello":
            if not self.hello.done():
                self.hello.set_result(event)
        elif self._allow_gap:
            self.write_gap(event)
        elif self.ended is None:
            self.lost = event
            self.end(CloseReason.GAP)

    def write_gap(self, event: Mapping[str, object]) -> None:
        """Write the message about lost rounds."""
        raise AssertionError("only of links that allow gaps")

    def write_disconnect(self, disconnect: Disconnect) -> None:
        if not self.hello.done():
            self.hello.set_result({})
        if not self._over.done():
            self._over.set_result(None)

    async def wait_ended(self, *, within_s: float | None = None) -> None:
        """Wait until the link has been ended by us, or `within_s` is over. A client that leaves cancels this."""
        await asyncio.wait((self._over,), timeout=within_s)

    @property
    def ending(self) -> Ending | None:
        """How the stream ends; None when it was not ended by us."""
        if self.lost is not None:
            return ending_of_gap(self.lost, self._hub.bounds)
        return None if self.ended is None else ending_of_goodbye(self.ended)


class GrpcLink(RpcLink):
    """A stream over HTTP/2. Its handler takes messages out of `sink`; when that ends, it sends `ending` as a status."""

    __slots__ = ("sink",)

    def __init__(
        self, hub: Hub, cut: Callable[[], object], ender: LinkEnder, *, max_age_s: float, allow_gap: bool = False
    ) -> None:
        """`cut` ends the call at once, and drops unsent messages."""
        self.sink = MessageSink(cut)
        form, drain = ProtobufRound(), self.sink.drained
        super().__init__(hub, self.sink, form, ender, max_age_s=max_age_s, drain=drain, allow_gap=allow_gap)

    def write_gap(self, event: Mapping[str, object]) -> None:
        message = gap_message(event).SerializeToString()
        self.sink.write(Messages((message,), len(message)))

    def write_disconnect(self, disconnect: Disconnect) -> None:
        super().write_disconnect(disconnect)
        self.sink.close()

    @property
    def ending(self) -> Ending | None:
        if self.ended is not None and self.sink.is_cut and self.sink.has_lost:
            return ending_of_goodbye(replace(self.ended, cursor=None))  # the cursor is after messages that were dropped
        return super().ending
