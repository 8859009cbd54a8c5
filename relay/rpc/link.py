"""A gRPC stream as the hub sees it: messages go to a sink, events become metadata, an end becomes a status."""

import asyncio
from collections.abc import Callable, Mapping

from relay.link import CloseReason, Goodbye, Link
from relay.rpc.convert import ProtobufRound, gap_message
from relay.rpc.sink import MessageSink


class GrpcLink(Link):
    """An open stream. Its handler takes messages out of `sink` and, when that ends, tells `ended` as a status."""

    __slots__ = ("_allow_gap", "hello", "lost", "sink")

    def __init__(self, cut: Callable[[], object], *, max_age_s: float, allow_gap: bool) -> None:
        self.sink = MessageSink(cut)
        super().__init__(self.sink, ProtobufRound(), max_age_s=max_age_s, drain=self.sink.drained)
        self.hello: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        """What the client is told before the first round, if it is told anything."""
        self.lost: Mapping[str, object] | None = None
        """The gap that ended the stream."""
        self._allow_gap = allow_gap

    def heartbeat(self) -> bool:
        return True  # HTTP/2 has pings of its own, and gRPC sends them

    def tell(self, event: Mapping[str, object]) -> None:
        if event["event"] == "hello":
            if not self.hello.done():
                self.hello.set_result(event)
        elif self._allow_gap:
            self.sink.write([gap_message(event)])
        elif self.ended is None:
            self.lost = event
            self.end(Goodbye(CloseReason.GAP, str(event["to"]), 0), linger_s=60)

    def say_goodbye(self, goodbye: Goodbye) -> None:
        if not self.hello.done():
            self.hello.set_result({})
        self.sink.close()
