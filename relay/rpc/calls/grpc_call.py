"""One gRPC call: what its client has sent of it, and its answer.

Owns the order of both: initial metadata, messages, one status; and the time that a client may take for its request and
has set for the whole call. No task belongs to a call. Does not know methods: a `CallHandler` answers.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from relay.errors import BadRequest, SlowRequest
from relay.http2 import DataBatch, Http2Stream, StreamReceiver
from relay.rpc.calls.call_head import CallHead, head_fields, only_trailers, trailer_fields
from relay.rpc.calls.late_answer import LateAnswer
from relay.rpc.calls.request_messages import RequestMessages, prefixed
from relay.rpc.status import DEADLINE, INTERNAL, OK, Metadata, Status, status_of

log = structlog.get_logger()


class OpenCallCount(Protocol):
    """Counts calls that are neither answered nor links."""

    open: int


class CallHandler:
    """Handles one call. What a method raises is given to `failed`."""

    __slots__ = ("call",)

    def __init__(self, call: "GrpcCall") -> None:
        self.call = call

    def message(self, data: bytes) -> None:
        """Handle a message of the request, which may be empty."""

    def half_closed(self) -> None:
        """The client sends no more messages."""

    def failed(self, error: Exception) -> None:
        """End the call: the request is malformed, too large or late, or a method here has raised."""
        self.call.refuse(error)

    def expired(self) -> None:
        """End the call: the client's deadline has passed."""
        self.call.end(DEADLINE)

    def lost(self) -> None:
        """Stop: the client has cancelled the call, or is gone. Not called after `GrpcCall.end`."""


class _Nobody(CallHandler):
    """Handles a call that is over, or not handled yet."""

    __slots__ = ()

    def __init__(self) -> None:
        """Belong to no call."""

    def failed(self, error: Exception) -> None:
        """Do nothing."""

    def expired(self) -> None:
        """Do nothing."""


_NOBODY: Final = _Nobody()

Begin = Callable[["GrpcCall"], CallHandler]
"""Makes the handler of a call of one method, when its headers have come. What it raises ends the call."""


class GrpcCall:
    """A call, and the receiver of its stream until `hand_over`."""

    __slots__ = (
        "_count",
        "_deadline",
        "_handler",
        "_has_sent",
        "_reader",
        "_request_timer",
        "deadline_at",
        "head",
        "is_over",
        "stream",
    )

    def __init__(self, stream: Http2Stream, head: CallHead, count: OpenCallCount, *, request_bytes: int) -> None:
        self.stream = stream
        self.head = head
        self.is_over = False
        """Whether the answer has ended, or the call is lost, or belongs to another receiver."""
        self._count = count
        self._has_sent = False  # initial metadata
        self._handler: CallHandler = _NOBODY
        self._reader = RequestMessages(head.encoding, request_bytes)
        self._request_timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.deadline_at: float | None = None
        """Loop time at which the client wants the call to end; None: it has set no time."""

    def begin(self, begin: Begin) -> StreamReceiver:
        """Give the call to a handler; return the receiver of its request."""
        if self.head.timeout_s is not None:
            loop = asyncio.get_running_loop()
            self.deadline_at = loop.time() + self.head.timeout_s
            self._deadline = loop.call_at(self.deadline_at, self._do, self._expire)
        try:
            handler = begin(self)
        except Exception as error:  # noqa: BLE001 - becomes a status
            self._leave()
            return LateAnswer(self.stream, only_trailers(self._status_of(error)))
        if not self.is_over:
            self._handler = handler
        return self

    # --- for handlers --------------------------------------------------------------------------------------------

    def expect_message(self, within_s: float) -> None:
        """Fail the call when no message has come within a time."""
        self.expect_nothing()
        loop = asyncio.get_running_loop()
        self._request_timer = loop.call_later(within_s, self._do, partial(self._late, within_s))

    def expect_nothing(self) -> None:
        """Wait for no message."""
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def send_metadata(self, metadata: Metadata = ()) -> None:
        """Send initial metadata, once and before messages."""
        self._has_sent = True
        self.stream.send_headers(head_fields(metadata))

    def send(self, message: bytes) -> None:
        """Send one message; initial metadata before the first one, unless that was sent."""
        self.write(DataBatch(prefixed(message)))

    def write(self, batch: DataBatch) -> None:
        """Send messages that have their prefixes."""
        if not self.is_over:
            if not self._has_sent:
                self.send_metadata()
            self.stream.write(batch)

    def end(self, status: Status = OK) -> None:
        """End the call after what was sent. Does nothing when it is over."""
        if self.is_over:
            return
        self._leave()
        if self._has_sent:
            self.stream.end(trailer_fields(status))
        else:
            self.stream.send_headers(only_trailers(status), ended=True)

    def refuse(self, error: Exception) -> None:
        """End the call with the status of an error; one that is a bug of ours is logged."""
        self.end(self._status_of(error))

    def hand_over(self, receiver: StreamReceiver) -> None:
        """Give the stream to another receiver, which keeps `deadline_at` from now on. The client is read no more."""
        self._leave()
        self.stream.receiver = receiver
        self.stream.hold()

    async def taken(self) -> None:
        """Wait until the answer has left, after `end`; or the stream is over otherwise."""
        stream = self.stream
        if not stream.is_over():
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = _Waiting(over)
            stream.receiver, stream.on_done = waiting, waiting.done
            await over

    # --- what the stream calls -----------------------------------------------------------------------------------

    def data(self, data: bytes, ended: bool) -> None:
        """See `relay.http2.http2_stream.StreamReceiver`."""
        if not self.is_over:
            self._do(partial(self._read, data, ended))

    def lost(self, code: int | None) -> None:
        """See `relay.http2.http2_stream.StreamReceiver`."""
        if not self.is_over:
            handler = self._handler
            self._leave()
            handler.lost()

    # --- its own -------------------------------------------------------------------------------------------------

    def _read(self, data: bytes, ended: bool) -> None:
        for message in self._reader.read(data):
            self._handler.message(message)
            if self.is_over:
                return
        if ended:
            if self._reader.is_partial:
                raise BadRequest("the request ends within a message")
            self._handler.half_closed()

    def _status_of(self, error: Exception) -> Status:
        status = status_of(error)
        if status is None:
            log.error("call_failed", path=self.head.path[:200], exc_info=error)
        return status or INTERNAL

    def _late(self, within_s: float) -> None:
        raise SlowRequest(within_s)

    def _expire(self) -> None:
        self._handler.expired()

    def _do(self, step: Callable[[], None]) -> None:
        if self.is_over:
            return
        handler = self._handler
        try:
            step()
        except Exception as error:  # noqa: BLE001 - becomes a status
            handler.failed(error)

    def _leave(self) -> None:
        """Stop: the call is over here."""
        self.is_over = True
        self._handler = _NOBODY  # it refers to this object: both would wait for Python's garbage collector
        self._count.open -= 1
        self.expect_nothing()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Waiting:
    """The receiver of a stream whose answer has ended, and is not taken yet."""

    def __init__(self, over: asyncio.Future[None]) -> None:
        self._over = over

    def data(self, data: bytes, ended: bool) -> None:
        """Ignore what is too late."""

    def lost(self, code: int | None) -> None:
        self.done()

    def done(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
