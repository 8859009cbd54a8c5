"""A call of a method that needs no key and has one request message.

Owns that calls without a message hold no more than a share: for another one, the oldest of the address with the most
ends. Does not know what is answered.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from relay.admission.strangers import Share
from relay.config.trusted_proxies import TrustedProxies
from relay.rpc.calls.grpc_call import GrpcCall
from relay.rpc.calls.one_request import OneRequest
from relay.rpc.requests import caller_of_call
from relay.rpc.status import Status
from relay.rpc.status_code import StatusCode

_WAITING: Final = 1000
"""Calls that wait for their message. A message comes with the call."""
_TOO_MANY: Final = Status(
    StatusCode.RESOURCE_EXHAUSTED, "too many calls without a message", (("retry-after-ms", "1000"),)
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The calls that wait for their message, and for how long they may."""

    request_s: float
    proxies: TrustedProxies
    """Those that say from which address a call comes."""

    share: Share


def waiting(request_s: float, proxies: TrustedProxies) -> Waiting:
    """Begin without calls."""
    return Waiting(request_s, proxies, Share(_WAITING))


class KeylessCall(OneRequest):
    """A call that waits for its message, then has it."""

    __slots__ = ("_share", "_task", "address", "idle_since")

    def __init__(self, call: GrpcCall, waiting: Waiting) -> None:
        super().__init__(call, within_s=waiting.request_s)
        self._task: asyncio.Task[None] | None = None
        self._share: Share | None = waiting.share
        self.address = caller_of_call(call, waiting.proxies).address
        self.idle_since = asyncio.get_running_loop().time()
        waiting.share.enter(self)

    def shed(self) -> None:
        """End the call for another one."""
        self._leave()
        self.call.end(_TOO_MANY)

    def answer(self, message: bytes) -> None:
        """Send the only answer."""
        self.call.send(message)
        self.call.end()

    def begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work that ends with the call."""
        self._task = asyncio.create_task(self._run(work))

    # --- as a handler --------------------------------------------------------------------------------------------

    def message(self, data: bytes) -> None:
        self._leave()
        super().message(data)

    def failed(self, error: Exception) -> None:
        self._stop()
        super().failed(error)

    def expired(self) -> None:
        self._stop()
        super().expired()

    def lost(self) -> None:
        self._stop()

    # --- its own -------------------------------------------------------------------------------------------------

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - becomes a status
            self._task = None
            self.failed(error)

    def _stop(self) -> None:
        self._leave()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _leave(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            share.leave(self)
