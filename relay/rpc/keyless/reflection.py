"""Server reflection: the methods and messages of the service, for tools. It needs no key, unless a setting says so.

Owns that a client cannot hold such a stream (`relay.rpc.keyless.open_calls`), nor leave many answers unread. The
answers are made in `relay.rpc.keyless.descriptors`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from relay.rpc.calls.grpc_call import Begin, CallHandler, GrpcCall
from relay.rpc.keyless.descriptors import ALPHA, V1, Descriptors
from relay.rpc.keyless.open_calls import OpenCalls

REFLECTIONS: Final = (V1, ALPHA)
"""Full names of the services; tools ask for the first one first."""
_WAITING: Final = 16
"""Requests at which a client that sends more is not read, besides one window."""


class Reflection:
    """Answers streams of reflection requests."""

    def __init__(
        self,
        descriptors: Descriptors,
        calls: OpenCalls,
        *,
        request_s: float,
        check_key: Callable[[GrpcCall], object] | None = None,
    ) -> None:
        """Prepare to answer.

        Args:
            descriptors: What is shown.
            calls: The share of these streams.
            request_s: How long a client may take for each of its requests.
            check_key: Raises when a call has no valid key; None: it needs none.
        """
        self.descriptors = descriptors
        self.calls = calls
        self.request_s = request_s
        self.check_key = check_key

    def methods(self) -> Mapping[str, Begin]:
        """Return what handles the calls of each method, by path."""
        return {f"/{service}/ServerReflectionInfo": lambda call: _Asked(self, call) for service in REFLECTIONS}


class _Asked(CallHandler):
    """One stream: each request is answered, until the client ends it or is silent for too long."""

    __slots__ = ("_arrived", "_has_all", "_reflection", "_requests", "_task")

    def __init__(self, reflection: Reflection, call: GrpcCall) -> None:
        super().__init__(call)
        if reflection.check_key is not None:
            reflection.check_key(call)
        self._reflection = reflection
        self._requests: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._has_all = False
        call.expect_message(reflection.request_s)
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run())

    def message(self, data: bytes) -> None:
        self.call.expect_nothing()
        self._requests.append(data)
        if len(self._requests) >= _WAITING:
            self.call.stream.hold()
        self._arrived.set()

    def half_closed(self) -> None:
        self.call.expect_nothing()
        self._has_all = True
        self._arrived.set()

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self._stop()

    def expired(self) -> None:
        super().expired()
        self._stop()

    def lost(self) -> None:
        self._stop()

    async def _run(self) -> None:
        try:
            await self._reflection.calls.run(self.call, self._answer)
        except Exception as error:  # noqa: BLE001 - becomes a status
            self._task = None
            self.failed(error)

    async def _answer(self) -> None:
        call = self.call
        while True:
            while self._requests:
                call.send(self._reflection.descriptors.answer(self._requests.popleft()))
                await call.stream.drained()
            if self._has_all:
                call.end()
                return
            call.stream.proceed()
            self._arrived.clear()
            call.expect_message(self._reflection.request_s)
            await self._arrived.wait()

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
