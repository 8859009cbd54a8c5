"""Calls with one request message: wait for it within a time, and answer it in a task.

Owns that the task of an answer ends with its call. Does not know what is answered.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from relay.errors import BadRequest
from relay.rpc.calls.grpc_call import Begin, CallHandler, GrpcCall


class OneRequest(CallHandler, ABC):
    """Waits for the message of a call, and gives it to `on_request`. More messages are ignored."""

    __slots__ = ("_has_request",)

    def __init__(self, call: GrpcCall, *, within_s: float) -> None:
        """`within_s`: how long the client may take for the message."""
        super().__init__(call)
        self._has_request = False
        call.expect_message(within_s)

    def message(self, data: bytes) -> None:
        if not self._has_request:
            self._has_request = True
            self.call.expect_nothing()
            self.call.stream.hold()
            self.on_request(data)

    def half_closed(self) -> None:
        if not self._has_request:
            raise BadRequest("the call has no request message")

    @abstractmethod
    def on_request(self, data: bytes) -> None:
        """Handle the message."""


class InTask(OneRequest):
    """Does the work of a call in a task, which ends with the call."""

    __slots__ = ("_task",)

    def __init__(self, call: GrpcCall, *, within_s: float) -> None:
        super().__init__(call, within_s=within_s)
        self._task: asyncio.Task[None] | None = None

    def on_request(self, data: bytes) -> None:
        self._task = asyncio.create_task(self._run(data))

    @abstractmethod
    async def work(self, data: bytes) -> None:
        """Answer the message. What this raises ends the call, by `failed`."""

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self._cancel()

    def expired(self) -> None:
        super().expired()
        self._cancel()

    def lost(self) -> None:
        self._cancel()

    async def _run(self, data: bytes) -> None:
        try:
            await self.work(data)
        except Exception as error:  # noqa: BLE001 - becomes a status
            self._task = None  # it ends by itself
            self.failed(error)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


Answer = Callable[[GrpcCall, bytes], Awaitable[bytes]]
"""Returns the answer to a message, or raises."""


class _Unary(InTask):
    __slots__ = ("_answer",)

    def __init__(self, call: GrpcCall, answer: Answer, *, within_s: float) -> None:
        super().__init__(call, within_s=within_s)
        self._answer = answer

    async def work(self, data: bytes) -> None:
        self.call.send(await self._answer(self.call, data))
        self.call.end()


def unary(answer: Answer, *, within_s: float) -> Begin:
    """Make the method that answers each call with what `answer` returns; the message may take `within_s` seconds."""
    return lambda call: _Unary(call, answer, within_s=within_s)
