"""What a connection sends: its window, and the turns of its streams.

Owns the order of what is written to the transport, the window of the connection, and how much waits in the transport.
Does not know frames other than as bytes. Streams that wait are served in turns, a few frames each.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from relay.http2.http2_frames import DEFAULT_WINDOW

AHEAD_BYTES: Final = 64 << 10
"""Bytes in the transport at which streams wait: what comes after (an end, a ping) is not far behind."""
SHORT_BYTES: Final = 36
"""A frame that small windows have made shorter counts as one of this length: clients answer each."""


class Sending(Protocol):
    """A stream that has bytes to send."""

    has_turns: bool

    def send_next(self) -> bool:
        """Send a part; return whether more can follow as far as this stream is concerned."""


class SendTurns:
    """The sending side of one connection."""

    __slots__ = (
        "_collected",
        "_waiters",
        "granted",
        "is_direct",
        "is_paused",
        "padding",
        "pong",
        "takes_pong",
        "transport",
        "waiting",
        "window",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.window = DEFAULT_WINDOW
        """Bytes of data that the peer takes on the connection."""
        self.granted = DEFAULT_WINDOW
        """All that the peer has ever allowed; without `window`: all that was sent."""
        self.padding = 0
        """By how much short frames count as longer ones."""
        self.is_paused = False
        """True while the transport holds too much."""
        self.waiting: deque[Sending] | None = None
        """Streams that can send when the connection can, the next one first."""
        self.is_direct = True
        """Whether a write goes to the transport as it is, without `send`."""
        self.pong: bytes | None = None
        """An answer to a ping, which waits for the next write of data."""
        self.takes_pong = False
        """Whether that has waited long enough."""
        self._collected: list[bytes] | None = None  # what is held, to be written at once
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def sent(self) -> int:
        """Bytes of data sent so far, as allowances for frames count them."""
        return self.granted - self.window + self.padding

    def send(self, data: bytes) -> None:
        """Write bytes after all that was written before."""
        if self._collected is not None:
            self._collected.append(data)
        elif self.takes_pong and self.pong is not None:
            self.transport.write(data + self.pong)
            self._drop_pong()
        else:
            self.transport.write(data)

    def collect(self) -> bool:
        """Hold what is written until `flush`, to write it at once; return False when that happens already."""
        if self._collected is not None:
            return False
        self._collected = []
        self.is_direct = False
        return True

    def flush(self) -> None:
        """Write what was collected."""
        collected, self._collected = self._collected, None
        self.is_direct = not self.takes_pong
        if collected:
            self.send(collected[0] if len(collected) == 1 else b"".join(collected))

    def release_pong(self) -> None:
        """Write the answer to a ping with the next data; or alone, when this is called again."""
        if self.pong is None:
            return
        if self.takes_pong:
            pong = self.pong
            self._drop_pong()
            self.send(pong)
        else:
            self.takes_pong, self.is_direct = True, False

    def _drop_pong(self) -> None:
        self.pong, self.takes_pong = None, False
        self.is_direct = self._collected is None

    def add(self, stream: Sending) -> None:
        """Give a stream turns; it has bytes and a window of its own."""
        if not stream.has_turns:
            stream.has_turns = True
            if self.waiting is None:
                self.waiting = deque()
            self.waiting.append(stream)

    def pump(self) -> None:
        """Send what may be sent now."""
        while self.waiting and self.window > 0 and not self.is_paused:
            is_outer = self.collect()
            room = AHEAD_BYTES
            while self.waiting and self.window > 0 and room > 0:
                stream = self.waiting.popleft()
                stream.has_turns = False
                before = self.window
                if stream.send_next():
                    self.add(stream)
                room -= before - self.window
            if not self.waiting:
                self.waiting = None
            if not is_outer:
                break  # the caller writes it; the rest is sent after that
            self.flush()
        if self._waiters:
            self.wake()

    async def progress(self) -> None:
        """Wait until something was sent, or the connection is lost."""
        if self._waiters is None:
            self._waiters = []
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """End each `progress`."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
