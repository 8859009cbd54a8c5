"""Links that have their own connection: WebSocket and SSE.

Owns what these links have in common: backpressure and the end of the connection. An idle link is a transport and this
one object: no task, no request, no handler. Does not know how the connection came to it: `relay.http.takeover`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from relay.live.closed import CLOSED
from relay.live.encode import Form
from relay.live.link import Link, LinkEnder

_IGNORED_BYTES: Final = 16 << 20
"""Read and dropped of a client that is not listened to, so that it reads its close frame; then nothing is read."""


class StreamLink(Link, asyncio.BaseProtocol):
    """A link that receives from its own transport, through `relay.links.intake`."""

    __slots__ = ("_ignored", "_resumed", "is_deaf")

    transport: asyncio.Transport

    def __init__(self, transport: asyncio.Transport, form: Form, ender: LinkEnder, *, max_age_s: float) -> None:
        super().__init__(transport, form, ender, max_age_s=max_age_s, drain=self.resumed)
        self.is_deaf = False
        """True when nothing that the client sends is parsed any more."""
        self._ignored = 0
        self._resumed: asyncio.Future[None] | None = None

    @property
    def holds_reading(self) -> bool:
        return self._ignored > _IGNORED_BYTES

    def ignore(self, data: bytes) -> bool:
        """Drop bytes; stop reading when they are too many. The end of such a connection shows at the next write."""
        self._ignored += len(data)
        if self.holds_reading:
            self.transport.pause_reading()
        return False

    # --- what the event loop calls, through `Intake` --------------------------------------------------------------

    def data_received(self, data: bytes) -> bool:
        """See `relay.links.intake.Receiver`."""
        return self.ignore(data)

    def eof_received(self) -> bool:
        """Close the connection of a client that has closed its sending side."""
        return False

    def pause_writing(self) -> None:
        if self._resumed is None:
            self._resumed = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiting, self._resumed = self._resumed, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def connection_lost(  # type: ignore[override]  # called by `Intake`
        self, exc: Exception | None
    ) -> Callable[[], None] | None:
        """Drop what is written from now on. The rest, `on_closed`, is work for a later turn: many may leave at once."""
        self.close_outlet()
        self.transport, self._drain = CLOSED, _nothing  # the latter refers to this object
        self.resume_writing()
        closed, self.on_closed = self.on_closed, None
        return closed

    async def resumed(self) -> None:
        """Wait while the transport has paused writing."""
        if self._resumed is not None:
            await asyncio.shield(self._resumed)


async def _nothing() -> None:
    """Wait for nothing: the connection is closed."""
