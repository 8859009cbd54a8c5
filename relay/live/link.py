"""One client connection as the hub sees it, and the reasons why one ends.

Owns what links of all protocols have in common: a transport that takes prepared bytes, the form of those bytes, and how
the link was ended. Does not know the log, or how its protocol writes a disconnect; ends are decided in
`relay.live.ending`.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from relay.live.encode import Form

if TYPE_CHECKING:
    from relay.live.compression.checksum import Checksum
    from relay.live.compression.shared_stream import SharedStream
    from relay.live.sending._send_loop import Outlet
    from relay.usage.account import Account
    from rounds import Cursor

Drain = Callable[[], Awaitable[None]]


class Sink(Protocol):
    """Takes a link's rounds: an `asyncio.WriteTransport`, or an object that behaves like one."""

    def write(self, data: Any) -> None:
        """Take one or several rounds, as the link's form joined them; never blocks."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the client."""

    def is_closing(self) -> bool:
        """Whether the connection is over."""

    def abort(self) -> None:
        """End the connection at once."""


class CloseReason(StrEnum):
    """Why a link ended: client advice, log field and metric label are this same word."""

    CLIENT = "client"  # the client closed, or its connection broke
    RATE_LIMITED = "rate_limited"  # the key or address is over a limit: reconnect after the delay
    CAPACITY = "capacity"  # this instance is full: reconnect after the delay
    LOG_UNAVAILABLE = "log_unavailable"  # this instance cannot follow the log now: reconnect after the delay
    DRAINING = "draining"  # reconnect after the delay; another instance answers
    MAX_AGE = "max_age"  # reconnect after the delay
    SLOW = "slow"  # reconnect with the cursor: the log still has everything
    REVOKED = "revoked"  # stop: the key was taken back, or no longer covers what the link follows
    DEADLINE = "deadline"  # the client's own deadline (gRPC) has passed
    GAP = "gap"  # rounds are gone, and the client (gRPC) did not allow gaps
    COMPLETED = "completed"  # the stream has reached the end that the client asked for (`to`)
    FAILED = "failed"  # a bug of ours, logged; reconnect
    UNRESPONSIVE = "unresponsive"  # no answer to two pings
    BAD_MESSAGE = "bad_message"  # fix the client


@dataclass(frozen=True, slots=True)
class Disconnect:
    """What a client gets when its link is ended by us."""

    reason: CloseReason
    cursor: str | None  # everything up to here was written to the link; None: repeat the first request
    retry_ms: int  # how long this client should wait before it reconnects


class LinkEnder(Protocol):
    """Ends links: see `relay.live.ending.Ender`."""

    def end(self, link: "Link", reason: CloseReason) -> None:
        """End an open link; do nothing when it has been ended."""

    def cut(self, link: "Link", reason: CloseReason) -> None:
        """End a link without a disconnect, and cut its connection at once."""


class Link(ABC):
    """A subscriber's connection. The hub writes to `transport` directly and never awaits anything of a link."""

    __slots__ = (
        "_drain",
        "_ender",
        "account",
        "cursor",
        "ended",
        "expires_at",
        "form",
        "heartbeat_s",
        "id",
        "on_closed",
        "opened_at",
        "outlet",
        "receives_events",
        "stream",
        "transport",
    )

    def __init__(self, transport: Sink, form: Form, ender: LinkEnder, *, max_age_s: float, drain: Drain) -> None:
        """Wrap a connection whose handshake is done.

        Args:
            transport: Takes what is written to the client.
            form: How rounds are written.
            ender: Ends the link.
            max_age_s: How old the link may get, in seconds.
            drain: Waits until the client has taken most of what was written.
        """
        self._drain = drain
        self._ender = ender
        self.id = f"{random.getrandbits(32):08x}"
        self.transport = transport
        self.outlet: Outlet | None = None
        """Allows the hub to send past `transport` while the link is subscribed: see `relay.live.sending`."""
        self.form = form
        self.opened_at = asyncio.get_running_loop().time()
        self.expires_at = self.opened_at + max_age_s
        self.ended: Disconnect | None = None
        self.cursor: Callable[[], Cursor | None] | None = None
        """Returns the cursor up to which everything was written; None before the link has subscribed."""
        self.heartbeat_s: float | None = None
        """The interval of heartbeats that its client asked for; None: the configured one."""
        self.account: Account | None = None
        """Counts what its key uses; set before the link subscribes."""
        self.on_closed: Callable[[], None] | None = None
        """Called once, soon after the connection of a link that has one of its own was closed, or its stream."""
        self.receives_events = False
        """True when the client uses cursors: it then gets events that are not rounds."""
        self.stream: SharedStream[Link] | None = None
        """The compressed stream that it shares with the other links of its channel."""

    def share(self, stream: "SharedStream[Link] | None") -> None:
        """Take part in the stream of a channel; None: no more. Called by the channel."""
        self.stream = stream

    def write_past(self, data: Any, _checksum: "Checksum | None" = None) -> None:
        """Write rounds for this client alone, as its form has joined them; the checksum is of what was compressed."""
        self.transport.write(data)
        if self.stream is not None:
            self.stream.put_out_of_step(self)

    @abstractmethod
    def heartbeat(self) -> bool:
        """Show the client, and every proxy in between, that the link is alive. Called once per heartbeat interval.

        Returns False when the client has not answered earlier heartbeats and the link should be ended.
        """

    @abstractmethod
    def send_event(self, event: Mapping[str, object]) -> None:
        """Write an event that is not a round, for this client alone."""

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written; raise ConnectionError when it has left."""
        await self._drain()
        if self.transport.is_closing():
            raise ConnectionResetError("the client has left")

    @abstractmethod
    def write_disconnect(self, disconnect: Disconnect) -> None:
        """Write a disconnect as the protocol does, and let the handler return. Called once; must not block."""

    def close_outlet(self) -> None:
        """Let the hub write to `transport` only: its socket is about to be closed, or the link is not subscribed."""
        outlet, self.outlet = self.outlet, None
        if outlet is not None:
            outlet.close()

    def end(self, reason: CloseReason) -> None:
        """End the link as `relay.live.ending.Ender` does; do nothing when it has been ended."""
        self._ender.end(self, reason)

    def abort(self) -> None:
        """End the connection at once; it may have ended."""
        self.transport.abort()

    def cut(self, reason: CloseReason) -> None:
        """Cut the link as `relay.live.ending.Ender` does: for a link whose cursor may be wrong."""
        self._ender.cut(self, reason)
