"""Sinks of the gRPC service: queues with the interface of a transport, to which the hub writes."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from relay.rpc.wire import MessageBatch
from relay.rpc.write_hint import MESSAGES_PER_WRITE

_LOW_WATER_BYTES: Final = 64 << 10


class MessageSink:
    """A queue of messages: the hub writes them, the call's handler sends them.

    It has no bound of its own: the hub ends a stream whose queue grows too large.
    """

    def __init__(self, cancel: Callable[[], object]) -> None:
        """`cancel` ends the call at once and drops its queued messages."""
        self._cancel = cancel
        self._queue: deque[MessageBatch] = deque()
        self._size = 0
        self._closing = False
        self.is_aborted = False
        """Whether the call was ended at once."""
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    def write(self, batch: MessageBatch) -> None:
        """Queue messages; they are sent in this order."""
        self._queue.append(batch)
        self._size += batch.size
        self._changed.set()

    def get_write_buffer_size(self) -> int:
        return self._size

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """End the stream when everything queued has been sent."""
        self._closing = True
        self._changed.set()
        self._taken.set()

    def abort(self) -> None:
        """End the stream at once, unless it has ended."""
        self.is_aborted = True
        self.close()
        self._cancel()

    @property
    def has_unsent(self) -> bool:
        """Whether a message was queued that has not been sent."""
        return self._size > 0

    async def drained(self) -> None:
        """Wait until at most `_LOW_WATER_BYTES` are queued, or the sink is closed."""
        while self._size > _LOW_WATER_BYTES and not self._closing:
            self._taken.clear()
            await self._taken.wait()

    async def pump(self, send: Callable[[bytes], Awaitable[None]], buffer_next: Callable[[], None]) -> None:
        """Pass every message to `send`, until closed and empty. A message counts as unsent until `send` returns.

        `buffer_next` is called before each message that another one follows at once, so that both leave in one write.
        """
        while True:
            while self._queue:
                messages = self._queue.popleft().messages
                remaining = len(messages)
                for message in messages:
                    remaining -= 1
                    if remaining % MESSAGES_PER_WRITE:
                        buffer_next()
                    await send(message)
                    self._size -= len(message)
                self._taken.set()
            if self._closing:
                return
            self._changed.clear()
            await self._changed.wait()


class BufferSink:
    """Collects bytes until there is a transport to write them to."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return len(self.data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Do nothing: there is no connection yet."""
