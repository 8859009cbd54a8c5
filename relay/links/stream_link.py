"""Links that have their own connection: WebSocket and SSE.

Owns what these links have in common: backpressure and the end of the connection. An idle link is a transport and this
one object: no task, no request, no handler. Does not know how the connection came to it: `relay.http.takeover`.
"""

import asyncio
from collections.abc import Callable

from relay.live.closed import CLOSED
from relay.live.encode import Form
from relay.live.link import Link, LinkEnder


class StreamLink(Link, asyncio.Protocol):
    """A link that is the protocol of its own transport."""

    __slots__ = ("_resumed", "on_closed")

    transport: asyncio.Transport

    def __init__(self, transport: asyncio.Transport, form: Form, ender: LinkEnder, *, max_age_s: float) -> None:
        super().__init__(transport, form, ender, max_age_s=max_age_s, drain=self.resumed)
        self.on_closed: Callable[[], None] | None = None
        """Called once, when the connection is closed."""
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
        self.transport = CLOSED
        self.resume_writing()
        closed, self.on_closed = self.on_closed, None
        if closed is not None:
            closed()

    async def resumed(self) -> None:
        """Wait while the transport has paused writing."""
        if self._resumed is not None:
            await asyncio.shield(self._resumed)
