"""Links of the service over HTTP/2: the hub writes rounds to a stream of a connection, as one batch for all streams.

Owns which metadata, messages and status a stream gets, and what of it is dropped for a client that does not read. An
idle link is this object and its `Http2Stream`: no task and no timer. Does not know how a call came to it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from relay.history.start import Start
from relay.live.closed import CLOSED
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, LinkEnder
from relay.rpc.calls.call_head import head_fields, only_trailers, trailer_fields
from relay.rpc.calls.grpc_call import GrpcCall
from relay.rpc.calls.request_messages import message_end, prefixed
from relay.rpc.rpc_link import RpcLink
from relay.rpc.status import Metadata, Status, metadata_of, status_of_disconnect
from relay.rpc.status_code import StatusCode
from relay.rpc.wire import ProtobufRound
from rounds import datastream_pb2 as pb

_FORM: Final = ProtobufRound()


class GrpcLink(RpcLink):
    """A stream over HTTP/2. It is the receiver of its `Http2Stream` from its start on."""

    __slots__ = ("_deadline", "_has_head", "_keeps_unsent", "_stream")

    def __init__(
        self,
        hub: Hub,
        call: GrpcCall,
        ender: LinkEnder,
        *,
        max_age_s: float,
        allow_gap: bool = False,
        keeps_unsent: bool = False,
    ) -> None:
        """Take a call whose request was read.

        Args:
            hub: What the link may subscribe to.
            call: The call; its stream belongs to this link from now on.
            ender: Ends the link.
            max_age_s: How old the link may get, in seconds.
            allow_gap: Whether a gap is a message; otherwise it ends the stream.
            keeps_unsent: Whether what is unsent at the end stays for a client that reads later, while there is a
                connection: its writer never has more than a few messages unsent.
        """
        stream = self._stream = call.stream
        super().__init__(hub, stream, _FORM, ender, max_age_s=max_age_s, drain=stream.drained, allow_gap=allow_gap)
        self._has_head = False
        self._keeps_unsent = keeps_unsent
        self._deadline: asyncio.TimerHandle | None = None
        call.hand_over(self)
        if call.deadline_at is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_at(call.deadline_at, self.end, CloseReason.DEADLINE)

    def begin(self, start: Start) -> None:
        """Send the initial metadata of a stream, before it follows anything; with a cursor or a time, hello has it.

        A stream that starts live gets the head of the log: its client has a cursor even before a round matches.
        """
        if start.is_live:
            self._send_head((("head-cursor", str(self._hub.head)),))
        elif not start.receives_events:
            self._send_head(())

    def write(self, message: bytes) -> None:
        """Write one message for this client alone."""
        self._send_head(())
        self._stream.write(prefixed(message))

    # --- as a link -----------------------------------------------------------------------------------------------

    def heartbeat(self) -> bool:
        return not self._has_head or super().heartbeat()

    def send_hello(self, event: Mapping[str, object]) -> None:
        self._send_head(metadata_of(event))

    def write_message(self, message: pb.Round) -> None:
        self.write(message.SerializeToString())

    def write_disconnect(self, disconnect: Disconnect) -> None:
        super().write_disconnect(disconnect)
        self.finish(self.status or status_of_disconnect(disconnect))

    def finish(self, status: Status) -> None:
        """End the stream after all that was written."""
        self._stream.on_done = self._closed_soon
        if self._has_head:
            self._stream.end(trailer_fields(status))
        else:
            self._stream.send_headers(only_trailers(status), ended=True)

    def abort(self) -> None:
        """End the stream at once. A client that reads later gets a status, and no cursor after what was dropped."""
        stream = self._stream
        if stream.is_over():
            pass
        elif self.ended is None:
            stream.reset()
        elif not self._has_head:
            stream.send_headers(only_trailers(self._status_without_cursor()), ended=True)
        elif not (self._keeps_unsent and stream.is_closing()):
            stream.end_early(trailer_fields(self._status_without_cursor()), message_end)
        self._closed_soon()

    # --- as the receiver of its stream ---------------------------------------------------------------------------

    def data(self, data: bytes, ended: bool) -> None:
        """Ignore what the client sends after its request."""

    def lost(self, code: int | None) -> None:
        """Stop: the client has cancelled the call, or is gone."""
        self._leave()
        closed, self.on_closed = self.on_closed, None
        if closed is not None:
            closed()

    # --- its own -------------------------------------------------------------------------------------------------

    def _send_head(self, metadata: Metadata) -> None:
        if not self._has_head and self.ended is None:
            self._has_head = True
            self._stream.send_headers(head_fields(metadata))

    def _status_without_cursor(self) -> Status:
        """Return the status of a link whose last messages are dropped."""
        if self.ended is None:
            raise AssertionError("it was ended")
        ended = replace(self.ended, cursor=None)
        status = status_of_disconnect(ended)
        if status.code is StatusCode.OK:  # the client has not got all that it asked for
            status = status_of_disconnect(replace(ended, reason=CloseReason.SLOW))
        return status

    def _closed_soon(self) -> None:
        """Close in a later turn: a link may be ended while it is opened."""
        self._leave()
        closed, self.on_closed = self.on_closed, None
        if closed is not None:
            asyncio.get_running_loop().call_soon(closed)

    def _leave(self) -> None:
        """Drop what is written from now on."""
        self.transport, self._drain = CLOSED, _nothing
        self._stream.on_done = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


async def _nothing() -> None:
    """Wait for nothing: the stream is over."""
