"""One client connection as the hub sees it, and the reasons why one ends.

Owns what every link has in common, whatever its protocol: a transport that takes prepared bytes, the form of those
bytes, and an end that always comes. Knows nothing of NATS; how a protocol says goodbye is in that protocol's
module.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

from relay.encode import Form


class CloseReason(StrEnum):
    """Why a link ended: client advice, log field and metric label are this same word."""

    CLIENT = "client"  # the client closed, or its connection broke
    DRAINING = "draining"  # reconnect after the given time; another instance answers
    MAX_AGE = "max_age"  # reconnect after the given time
    SLOW = "slow"  # reconnect with the cursor: the log still has everything
    UNRESPONSIVE = "unresponsive"  # no answer to two pings
    BAD_MESSAGE = "bad_message"  # fix the client


@dataclass(frozen=True, slots=True)
class Goodbye:
    """What a client is told when its link is ended by us."""

    reason: CloseReason
    cursor: str | None  # everything up to here was written to the link
    retry_ms: int  # how long this client should wait before it reconnects


class Link(ABC):
    """A subscriber's connection. The hub writes to `transport` directly and never awaits anything of a link."""

    __slots__ = ("ended", "expires_at", "form", "id", "opened_at", "sent_bytes", "transport")

    def __init__(self, transport: asyncio.WriteTransport, form: Form, *, max_age_s: float) -> None:
        self.id = secrets.token_hex(4)
        self.transport = transport
        self.form = form
        self.opened_at = asyncio.get_running_loop().time()
        self.expires_at = self.opened_at + max_age_s
        self.sent_bytes = 0
        self.ended: Goodbye | None = None

    @abstractmethod
    def heartbeat(self) -> bool:
        """Show the client, and every proxy on the way, that the link is alive. Called once per heartbeat interval.

        Returns False when the client has not answered earlier heartbeats and should be given up.
        """

    @abstractmethod
    def say_goodbye(self, goodbye: Goodbye) -> None:
        """Write the protocol's farewell and let the handler return. Called once; must not block."""

    def end(self, goodbye: Goodbye, *, linger_s: float) -> None:
        """End the link: say goodbye now, and cut the connection if the client has not read it within `linger_s`.

        Later calls change nothing. Nothing may be written to the transport after this.
        """
        if self.ended is not None:
            return
        self.ended = goodbye
        self.say_goodbye(goodbye)
        # A client that has stopped reading would otherwise hold its buffer for ever.
        asyncio.get_running_loop().call_later(linger_s, self.transport.abort)
