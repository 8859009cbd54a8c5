"""One client connection as the hub sees it, and the reasons why one ends.

Owns what every link has in common, whatever its protocol: a transport that takes prepared bytes, the form of those
bytes, and an end that always comes. Knows nothing of NATS; how a protocol says goodbye is in that protocol's
module.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from relay.live.encode import Form

if TYPE_CHECKING:
    from rounds import Cursor

Drain = Callable[[], Awaitable[None]]


class Sink(Protocol):
    """Where a link's rounds go: an `asyncio.WriteTransport`, or what stands for one."""

    def write(self, data: Any) -> None:
        """Take what the link's form made of one or several rounds; never blocks."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the client."""

    def is_closing(self) -> bool:
        """Whether the connection is over."""

    def abort(self) -> None:
        """End the connection at once."""


class CloseReason(StrEnum):
    """Why a link ended: client advice, log field and metric label are this same word."""

    CLIENT = "client"  # the client closed, or its connection broke
    CAPACITY = "capacity"  # this instance is full: reconnect after the given time
    LOG_UNAVAILABLE = "log_unavailable"  # this instance cannot follow the log now: reconnect after the given time
    DRAINING = "draining"  # reconnect after the given time; another instance answers
    MAX_AGE = "max_age"  # reconnect after the given time
    SLOW = "slow"  # reconnect with the cursor: the log still has everything
    DEADLINE = "deadline"  # the client's own deadline (gRPC) has passed
    GAP = "gap"  # rounds are gone, and the client (gRPC) did not say that it can go on without them
    COMPLETED = "completed"  # the end that the client asked for (`to`)
    FAILED = "failed"  # a bug of ours, logged; reconnect
    UNRESPONSIVE = "unresponsive"  # no answer to two pings
    BAD_MESSAGE = "bad_message"  # fix the client


@dataclass(frozen=True, slots=True)
class Disconnect:
    """What a client is told when its link is ended by us."""

    reason: CloseReason
    cursor: str | None  # everything up to here was written to the link; None: begin again as you began
    retry_ms: int  # how long this client should wait before it reconnects


class Link(ABC):
    """A subscriber's connection. The hub writes to `transport` directly and never awaits anything of a link."""

    __slots__ = ("_drain", "cursor", "ended", "expires_at", "form", "id", "opened_at", "receives_events", "transport")

    def __init__(self, transport: Sink, form: Form, *, max_age_s: float, drain: Drain) -> None:
        """Wrap a connection whose handshake is done; `drain` waits until its client has taken most of what it got."""
        self._drain = drain
        self.id = secrets.token_hex(4)
        self.transport = transport
        self.form = form
        self.opened_at = asyncio.get_running_loop().time()
        self.expires_at = self.opened_at + max_age_s
        self.ended: Disconnect | None = None
        self.cursor: Callable[[], Cursor | None] | None = None
        """Says up to where everything was written; None: to the hub's head."""
        self.receives_events = False
        """True when the client knows of cursors, and so of events that are not rounds."""

    @abstractmethod
    def heartbeat(self) -> bool:
        """Show the client, and every proxy on the way, that the link is alive. Called once per heartbeat interval.

        Returns False when the client has not answered earlier heartbeats and should be given up.
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
    def write_disconnect(self, goodbye: Disconnect) -> None:
        """Write the protocol's farewell and let the handler return. Called once; must not block."""

    def end(self, goodbye: Disconnect, *, linger_s: float) -> None:
        """End the link: say goodbye now, and cut the connection if the client has not read it within `linger_s`.

        Later calls change nothing. Nothing may be written to the transport after this.
        """
        if self.ended is not None:
            return
        self.ended = goodbye
        self.write_disconnect(goodbye)
        # A client that has stopped reading would otherwise hold its buffer for ever.
        asyncio.get_running_loop().call_later(linger_s, self.transport.abort)
