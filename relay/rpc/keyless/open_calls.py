"""Calls without a key: at most a number at a time, each for a time, on the share that all strangers have.

Owns the end of such a call: when its time is over, when others need its place, or when the relay stops. Does not know
what the call does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from relay.admission.strangers import Share
from relay.config.trusted_proxies import TrustedProxies
from relay.rpc.calls.grpc_call import GrpcCall
from relay.rpc.requests import caller_of_call
from relay.rpc.status import Status
from relay.rpc.status_code import StatusCode

_NO_PROXIES: Final = TrustedProxies()


class OpenCall:
    """A call as a member of its share."""

    def __init__(self, address: str, deadline: asyncio.Timeout, now: float) -> None:
        self.address = address
        self.idle_since = now
        self.was_shed = False
        self._deadline = deadline

    def shed(self) -> None:
        self.was_shed = self.end()

    def end(self) -> bool:
        """End it now; return False when it is ending."""
        if self._deadline.expired():
            return False
        self._deadline.reschedule(self.idle_since)  # now: it is in the past
        return True


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
        self._open: set[OpenCall] = set()
        self._has_stopped = False

    def stop(self) -> None:
        """End all calls: the relay stops."""
        self._has_stopped = True
        for call in self._open:
            call.end()

    async def run(self, call: GrpcCall, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a call, and end it when its time is over."""
        member: OpenCall | None = None
        try:
            async with asyncio.timeout(self._age_s()) as deadline:
                address = caller_of_call(call, self._proxies).address
                member = OpenCall(address, deadline, asyncio.get_running_loop().time())
                self._open.add(member)
                self.share.enter(member)
                try:
                    await work()
                finally:
                    self.share.leave(member)
                    self._open.discard(member)
        except TimeoutError:
            call.end(self._status(member))

    def _status(self, member: OpenCall | None) -> Status:
        trailers = (("retry-after-ms", str(self._retry_ms())),)
        if member is not None and member.was_shed:
            return Status(StatusCode.RESOURCE_EXHAUSTED, "too many calls without a key", trailers)
        reason = "draining" if self._has_stopped else "max_age"
        return Status(StatusCode.UNAVAILABLE, f"{reason}: call again", trailers)
