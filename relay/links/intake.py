"""What clients send: read in small pieces, and handled within a bounded share of each turn of the event loop.

Owns how much of a connection is read at a time, and how long all connections together may take in one turn for what
their clients sent. Does not know what the bytes mean: a `Receiver` handles them. Without it, uvloop reads up to 8 MB of
one connection in one turn. Why: docs/adr/0016-a-share-of-each-turn.md
"""

import asyncio
import socket
import sys
from collections import deque
from time import perf_counter
from typing import Final, Protocol

_PIECE_BYTES: Final = 8 << 10
"""Bytes read of a connection at a time. More than most requests have; their worst kind takes 1.5 ms to parse."""
_TURN_S: Final = 0.001
"""Time for what clients sent, per turn: short beside the time that a round takes through the relay."""

_REQUEST_S: Final = 0.0002
"""What the handler of a request is counted as. Most take 0.1 ms; a history of 1000 rounds takes 2 ms."""
_LOOKS_S: Final = (0.1, 1.0)
"""Time until a connection whose client has closed its sending side is looked at first, and then each time."""
_TCP_CLOSE: Final = 7
"""The state of a connection that was reset, in ``tcp_info`` (linux/tcp.h, net/tcp_states.h)."""

_piece: Final = bytearray(_PIECE_BYTES)
"""All connections read into it: event loops read and hand over in one step."""


class Receiver(Protocol):
    """Handles what one client sends."""

    @property
    def holds_reading(self) -> bool:
        """Whether it paused the reading of its transport itself; it then resumes it itself."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def data_received(self, data: bytes) -> bool | None:
        """Handle bytes. True: some are not handled yet; it is called again with ``b""``, in a later turn if need be."""

    def eof_received(self) -> bool | None:
        """The client has closed its sending side. True: the connection stays open."""


class Work(Protocol):
    """What one connection has to do."""

    def work(self) -> bool:
        """Do a small part of it; return whether there is more."""

    def finished(self) -> None:
        """Called when no more was left, if that was in a later turn."""


class Turns:
    """Divides the time that each turn of the loop has for what clients sent: first come, first served.

    A connection that is not finished when the time is over waits behind all others that wait.
    """

    def __init__(self, *, turn_s: float = _TURN_S) -> None:
        self._turn_s = turn_s
        self._left_s = turn_s
        self._next_due = False
        self._waiting: deque[Work] = deque()

    def serve(self, work: Work) -> bool:
        """Let a connection do its work, as far as this turn has time; return whether it is finished.

        When it is not, its `Work.finished` is called in the later turn in which it is.
        """
        self._call_next()
        if not self._waiting and self._do(work):
            return True
        self._waiting.append(work)
        return False

    def serve_later(self, work: Work) -> None:
        """Do as `serve`, in a later turn."""
        self._call_next()
        self._waiting.append(work)

    async def wait(self, more_s: float = 0.0) -> None:
        """Wait until a turn has time for the handler of a request, or for a part of it, whose own time is unknown.

        `more_s`: by how many seconds it probably takes longer than most.
        """
        cost_s = _REQUEST_S + more_s
        if not self._waiting and self._left_s > 0:
            self._call_next()
            self.spend(cost_s)
            return
        entry = _Entry(self, cost_s)
        self.serve_later(entry)
        await entry.entered

    def spend(self, time_s: float) -> None:
        """Take time from this turn."""
        self._left_s -= time_s

    def _do(self, work: Work) -> bool:
        unfinished = True
        while unfinished and self._left_s > 0:
            began = perf_counter()
            try:
                unfinished = work.work()
            finally:
                self._left_s -= perf_counter() - began
        return not unfinished

    def _call_next(self) -> None:
        if not self._next_due:
            self._next_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._next_due, self._left_s = False, self._turn_s
        try:
            while self._waiting and self._left_s > 0:
                work = self._waiting.popleft()
                if self._do(work):
                    work.finished()
                else:
                    self._waiting.append(work)
        finally:
            if self._waiting:
                self._call_next()


class _Entry:
    """The start of a request's handler, or of a part of it."""

    __slots__ = ("_cost_s", "_turns", "entered")

    def __init__(self, turns: Turns, cost_s: float) -> None:
        self._turns = turns
        self._cost_s = cost_s
        self.entered = asyncio.get_running_loop().create_future()

    def work(self) -> bool:
        if not self.entered.cancelled():
            self._turns.spend(self._cost_s)
        return False

    def finished(self) -> None:
        if not self.entered.done():
            self.entered.set_result(None)


class Intake(asyncio.BufferedProtocol):
    """The protocol of a connection: it reads a piece, and gives it to the receiver when its turn has time for it.

    Bounded: while a piece waits, nothing more is read.
    """

    __slots__ = ("_held", "_is_at_end", "_look", "_receiver", "_transport", "_turns", "_waits")

    _transport: asyncio.Transport

    def __init__(self, turns: Turns, receiver: Receiver) -> None:
        self._turns = turns
        self._receiver = receiver
        self._held = b""
        self._waits = False
        self._is_at_end = False
        self._look: asyncio.TimerHandle | None = None

    def hand_to(self, receiver: Receiver) -> None:
        """Give the connection to another receiver, with all bytes that the former one did not take."""
        self._receiver = receiver
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
        """Give the receiver what is held; return whether it has to be called again."""
        data, self._held = self._held, b""
        if self._transport.is_closing():
            return False
        try:
            return bool(self._receiver.data_received(data))
        except BaseException:
            self._transport.abort()
            raise

    def finished(self) -> None:
        """Read on, after the wait for a turn with time."""
        self._waits = False
        if self._transport.is_closing():
            return
        if self._is_at_end:
            self._end()
        elif not self._receiver.holds_reading:
            self._transport.resume_reading()

    # --- what the event loop calls -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # as of any stream
        self._receiver.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def get_buffer(self, sizehint: int) -> bytearray:
        return _piece

    def buffer_updated(self, nbytes: int) -> None:
        self._held += _piece[:nbytes]
        if self._waits:
            self._transport.pause_reading()
        elif not self._turns.serve(self):
            self._waits = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._is_at_end = True
        if not self._waits:
            self._end()
        return True

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
            return
        if _is_reset(self._transport):
            self._transport.abort()
        else:
            self._look = asyncio.get_running_loop().call_later(_LOOKS_S[1], self._look_for_reset)


def _is_reset(transport: asyncio.Transport) -> bool:
    if sys.platform != "linux":
        return False  # the next write but one finds it
    connection = transport.get_extra_info("socket")
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)
