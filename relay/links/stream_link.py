"""Links that are connections of their own: once the request is read, the socket belongs to the link and to nobody
else.

Owns how a connection is taken over from aiohttp, and what WebSocket and SSE links have in common. An idle link is
then a transport and this one object: no task, no request, no handler. Why: docs/adr/0010-links-leave-aiohttp.md
"""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from aiohttp import web

from relay.live.encode import Form
from relay.live.link import Link, LinkEnder

_STATUS: Final = {101: "Switching Protocols", 200: "OK"}


class TakenOver(asyncio.CancelledError):
    """Ends the handler of a request whose connection has become a link's.

    To aiohttp the client has left, and it cancels the handlers of clients that leave: anything else would be answered.
    """


class StreamLink(Link, asyncio.Protocol):
    """A link that is the protocol of its own transport."""

    __slots__ = ("_resumed", "on_closed")

    transport: asyncio.Transport

    def __init__(self, transport: asyncio.Transport, form: Form, ender: LinkEnder, *, max_age_s: float) -> None:
        super().__init__(transport, form, ender, max_age_s=max_age_s, drain=self.resumed)
        self.on_closed: Callable[[], None] | None = None
        """Called once, when the connection is gone."""
        self._resumed: asyncio.Future[None] | None = None

    # --- what the event loop calls -------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        if self._resumed is None:
            self._resumed = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiting, self._resumed = self._resumed, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        closed, self.on_closed = self.on_closed, None
        if closed is not None:
            closed()

    async def resumed(self) -> None:
        """Wait until the transport takes more."""
        if self._resumed is not None:
            await asyncio.shield(self._resumed)


def take_over(request: web.Request) -> asyncio.Transport:
    """Take a request's connection from aiohttp; raise `TakenOver` when the client has left already.

    The caller makes a link of it at once, without awaiting anything, and ends its handler with `TakenOver`.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise TakenOver
    request.protocol.transport = None  # or losing it would close it
    request.protocol.connection_lost(None)
    return transport


def give_to(link: StreamLink, transport: asyncio.Transport) -> None:
    """Let a link have what arrives on a transport."""
    transport.set_protocol(link)
    if not transport.is_reading():
        transport.resume_reading()


def head(status: int, headers: dict[str, str]) -> bytes:
    """Render the head of an answer that aiohttp does not write."""
    lines = [f"HTTP/1.1 {status} {_STATUS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Date: {formatdate(usegmt=True)}", "Server: stream-relay", "", ""]).encode("latin-1")
