"""Where the hub puts the messages of one stream, and its handler takes them out. Stands for a transport."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from relay.rpc.wire import Messages
from relay.rpc.write_hint import TOGETHER

_LOW_WATER_BYTES: Final = 64 << 10


class MessageSink:
    """A queue of messages with the manners of a transport. Bounded by the hub, which ends who lets it grow."""

    def __init__(self, cut: Callable[[], object]) -> None:
        """`cut` ends the stream at once, whatever still waits in it."""
        self._cut = cut
        self._waiting: deque[Messages] = deque()
        self._size = 0
        self._closing = False
        self.is_cut = False
        """Whether the stream was ended at once."""
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    def write(self, messages: Messages) -> None:
        """Take messages; they leave in this order."""
        self._waiting.append(messages)
        self._size += messages.size
        self._changed.set()

    def get_write_buffer_size(self) -> int:
        return self._size

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Let the stream end when everything has been taken."""
        self._closing = True
        self._changed.set()
        self._taken.set()

    def abort(self) -> None:
        """End the stream at once, unless it has ended."""
        self.is_cut = True
        self.close()
        self._cut()

    @property
    def has_lost(self) -> bool:
        """Whether something was written that nobody has taken."""
        return self._size > 0

    async def drained(self) -> None:
        """Wait until little is left to take."""
        while self._size > _LOW_WATER_BYTES and not self._closing:
            self._taken.clear()
            await self._taken.wait()

    async def pump(self, send: Callable[[bytes], Awaitable[None]], hold: Callable[[], None]) -> None:
        """Hand every message to `send`, until closed and empty. A message counts as unsent until `send` returns.

        `hold` is called before a message that the next one follows at once, so that both can leave in one write.
        """
        while True:
            while self._waiting:
                messages = self._waiting.popleft().messages
                left = len(messages)
                for message in messages:
                    left -= 1
                    if left % TOGETHER:
                        hold()
                    await send(message)
                    self._size -= len(message)
                self._taken.set()
            if self._closing:
                return
            self._changed.clear()
            await self._changed.wait()


class HeldBack:
    """Keeps bytes until there is a transport to write them to."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return len(self.data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """There is no connection yet that could be ended."""
