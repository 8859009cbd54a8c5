"""Calls without a key: at most a number at a time, each for a time, on the share that all strangers have.

Owns the end of such a call: when its time is over, or when others need its place. Does not know what the call does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from grpc import StatusCode, aio

from relay.admission.strangers import Share
from relay.config.trusted_proxies import TrustedProxies
from relay.rpc.requests import caller_of_call

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]


_NO_PROXIES: Final = TrustedProxies()


class OpenCall:
    """A call as a member of its share."""

    def __init__(self, address: str, deadline: asyncio.Timeout, now: float) -> None:
        self.address = address
        self.idle_since = now
        self.was_shed = False
        self._deadline = deadline

    def shed(self) -> None:
        if self._deadline.expired():  # it is ending
            return
        self.was_shed = True
        self._deadline.reschedule(self.idle_since)  # now: it is in the past


class OpenCalls:
    """The open calls of a method that needs no key."""

    def __init__(
        self,
        most: int,
        *,
        age_s: Callable[[], float],
        retry_ms: Callable[[], int],
        proxies: TrustedProxies = _NO_PROXIES,
    ) -> None:
        """Begin without calls.

        Args:
            most: Calls at a time. For another one, the oldest of the address with the most calls ends.
            age_s: Draws how long a call may last, in seconds.
            retry_ms: Draws when its client may call again.
            proxies: Those that say from which address a call comes.
        """
        self.share = Share(most)
        self._age_s = age_s
        self._retry_ms = retry_ms
        self._proxies = proxies

    async def run(self, context: "Context", work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a call; abort it when its time is over."""
        call: OpenCall | None = None
        try:
            async with asyncio.timeout(self._age_s()) as deadline:
                call = OpenCall(
                    caller_of_call(context, self._proxies).address, deadline, asyncio.get_running_loop().time()
                )
                self.share.enter(call)
                try:
                    await work()
                finally:
                    self.share.leave(call)
        except TimeoutError:
            trailers = (("retry-after-ms", str(self._retry_ms())),)
            if call is not None and call.was_shed:
                await context.abort(StatusCode.RESOURCE_EXHAUSTED, "too many calls without a key", trailers)
            await context.abort(StatusCode.UNAVAILABLE, "max_age: call again", trailers)
