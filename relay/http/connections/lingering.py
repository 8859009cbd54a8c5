"""Close a connection whose client may still be sending, so that it gets the last answer and not a reset.

A close with unread bytes would reset the connection, and the client would lose the answer (RFC 9112 section 9.6). So
the sending side is closed, and what the client still sends is read and dropped, within a time and a size.
"""

import asyncio
from typing import Final

from aiohttp import web

from relay.admission.strangers import Share
from relay.http.connections.guarded import GuardedHandler
from relay.links.intake import Intake

_LINGER_S: Final = 3.0
"""For clients that read the answer only after they have sent all."""
_LINGER_BYTES: Final = 4 << 20


class Lingering(asyncio.Protocol):
    """Reads a connection whose last answer is written, until the client closes it. It is one of a stranger."""

    holds_reading = False

    def __init__(self, transport: asyncio.Transport, strangers: Share, address: str) -> None:
        loop = asyncio.get_running_loop()
        self.address = address
        self.idle_since = loop.time()
        self.shed = transport.abort
        self._cut = loop.call_later(_LINGER_S, transport.abort)
        self._dropped = 0
        self._strangers = strangers
        strangers.enter(self)

    def data_received(self, data: bytes) -> None:
        """Drop what the client still sends."""
        self._dropped += len(data)
        if self._dropped > _LINGER_BYTES:
            self.shed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut.cancel()
        self._strangers.leave(self)


def leave(protocol: web.RequestHandler) -> None:
    """End aiohttp's part in a connection, and leave its transport open."""
    protocol.transport = None  # connection_lost would close it
    protocol.connection_lost(None)


def linger(protocol: GuardedHandler, transport: asyncio.Transport) -> None:
    """Close the sending side of a connection now, and the connection when its client does."""
    intake = transport.get_protocol()
    if transport.is_closing() or not isinstance(intake, Intake):
        return
    leave(protocol)
    intake.hand_to(Lingering(transport, protocol.strangers, protocol.address))
    transport.write_eof()
