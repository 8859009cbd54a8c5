"""What clients send: read in small pieces, and handled within a bounded share of each turn of the event loop.

Owns how much of a connection is read at a time; `relay.turns` when it is handled. Does not know what the bytes
mean: a `Receiver` handles them. Without it, uvloop reads up to 8 MB of one connection in one turn.
Why: docs/adr/0016-a-share-of-each-turn.md
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Final, Protocol

from relay.turns import Turns

_PIECE_BYTES: Final = 2 << 10
"""Bytes read of a connection at a time. More than most requests have; their worst kind takes 0.4 ms to parse."""
_LOOKS_S: Final = (0.1, 1.0)
"""Time until a connection whose client has closed its sending side is looked at first, and then each time."""
_TCP_CLOSE: Final = 7
"""The state of a connection that was reset, in ``tcp_info`` (linux/tcp.h, net/tcp_states.h)."""

_piece: Final = memoryview(bytearray(_PIECE_BYTES))
"""All connections read into it: event loops read and hand over in one step.

A view, since asyncio's TLS writes each further record into a slice of it: that of a bytearray is a copy.
"""


class Receiver(Protocol):
    """Handles what one client sends."""

    @property
    def holds_reading(self) -> bool:
        """Whether it paused the reading of its transport itself; it then resumes it itself."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> Callable[[], None] | None:
        """Stop using the connection; return what remains to be done, which may wait for a later turn."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def data_received(self, data: bytes) -> bool | None:
        """Handle bytes. True: some are not handled yet; it is called again with ``b""``, in a later turn if need be."""

    def eof_received(self) -> bool | None:
        """The client has closed its sending side. True: the connection stays open."""


class Intake(asyncio.BufferedProtocol):
    """The protocol of a connection: it reads a piece, and gives it to the receiver when its turn has time for it.

    Bounded: while a piece waits, one more is read.
    """

    __slots__ = ("_has_more", "_held", "_is_at_end", "_look", "_receiver", "_transport", "_turns", "_waits")

    _transport: asyncio.Transport

    def __init__(self, turns: Turns, receiver: Receiver) -> None:
        self._turns = turns
        self._receiver = receiver
        self._held = b""
        self._has_more = False  # the receiver has not handled all that it was given
        self._waits = False
        self._is_at_end = False
        self._look: asyncio.TimerHandle | None = None

    def hand_to(self, receiver: Receiver) -> None:
        """Give the connection to another receiver, with all bytes that the former one did not take."""
        self._receiver, self._has_more = receiver, False
        if self._waits:
            return
        if self._held or self._is_at_end:
            self._waits = True
            self._transport.pause_reading()
            self._turns.serve_later(self)
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def put_back(self, data: bytes) -> None:
        """Take bytes back from a receiver that is about to be replaced: they are for the next one."""
        self._held = data + self._held

    # --- for `Turns` ---------------------------------------------------------------------------------------------

    def work(self) -> bool:
        """Give the receiver what is held, and then the end; return whether it has to be called again."""
        data, self._held = self._held, b""
        if self._transport.is_closing():
            return False
        try:
            if data or self._has_more:
                self._has_more = bool(self._receiver.data_received(data))
            if self._is_at_end and not self._has_more and not self._held:
                self._end()
        except BaseException:
            self._transport.abort()
            raise
        return self._has_more

    def finished(self) -> None:
        """Read on, after the wait for a turn with time."""
        self._waits = False
        transport = self._transport
        if transport.is_closing() or self._is_at_end or self._receiver.holds_reading or transport.is_reading():
            return
        transport.resume_reading()

    # --- what the event loop calls -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # as of any stream
        self._receiver.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        rest = self._receiver.connection_lost(exc)
        if rest is not None:
            self._turns.call(rest)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _piece

    def take(self, data: bytes) -> None:
        """Take bytes that were read in another way, such as from a stream of a connection."""
        self._held += data
        if self._waits:
            self._transport.pause_reading()
        else:
            self._waits = not self._turns.serve(self)

    def buffer_updated(self, nbytes: int) -> None:
        self._held += _piece[:nbytes]
        if self._waits:  # not before: to stop and to start reading again takes longer than most pieces
            self._transport.pause_reading()
        else:
            self._waits = not self._turns.serve(self)

    def eof_received(self) -> bool:
        self._is_at_end = True
        if not self._waits:
            self._waits = not self._turns.serve(self)
        # TLS has no half-closed connections: asyncio closes them, and logs a warning when it is asked not to.
        return self._transport.get_extra_info("sslcontext") is None

    def _end(self) -> None:
        if not self._receiver.eof_received():
            self._transport.close()
        elif self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOKS_S[0], self._look_for_reset)

    def _look_for_reset(self) -> None:
        """Cut the connection of a client that has left.

        A close of both sides looks like one of the sending side, until the client answers bytes with a reset. The loop
        does not notice that: it does not watch the connection while nothing is read or written.
        """
        if self._transport.is_closing():
            self._look = None
        elif _is_reset(self._transport):
            self._transport.abort()
        else:
            self._look = asyncio.get_running_loop().call_later(_LOOKS_S[1], self._look_for_reset)


def _is_reset(transport: asyncio.Transport) -> bool:
    if sys.platform != "linux":
        return False  # the next write but one finds it
    connection = transport.get_extra_info("socket")
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)
