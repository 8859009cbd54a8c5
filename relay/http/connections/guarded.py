"""What a client may hold of an HTTP connection: its place, time for a request and an answer, and unread bytes.

Owns the deadlines and sizes of a connection before it becomes a link, and which share it is counted in: strangers until
a credential of one of its requests was accepted, then guests. Does not know paths, nor the answer to malformed requests
(`relay.http.protocol`). Why: docs/adr/0017-shares-of-strangers.md
"""

import asyncio
from typing import Any, Final, NamedTuple

from aiohttp import web

from relay.admission.strangers import Share
from relay.errors import BadRequest, SlowRequest, TooLarge
from relay.turns import Turns

SMALL_BODY_BYTES: Final = 4 << 10
"""The largest body where none is needed, as of ``POST /api/auth/token``."""
_CHUNKS: Final = 256
"""Chunks of a body. Most have one or two; each takes several microseconds, however small it is."""
_TAKEN_S: Final = 10.0
_TAKEN_BYTES: Final = 16 << 10
"""A client that does not take this much of an answer in `_TAKEN_S` is cut: the largest takes 4 min at most."""


class ConnectionLimits(NamedTuple):
    """The limits that all connections share."""

    strangers: Share
    guests: Share
    request_s: float  # time for the head of a request, and again for its body


class GuardedHandler(web.RequestHandler):
    """aiohttp's handler of one connection, within `ConnectionLimits`."""

    __slots__ = ("_deadline", "_limits", "_share", "_taken", "_unsent", "address", "idle_since", "turns")

    def __init__(self, server: web.Server, limits: ConnectionLimits, turns: Turns, **options: Any) -> None:
        super().__init__(server, lingering_time=0, **options)
        self._limits = limits
        self.turns = turns
        """The share of each turn of the loop that requests have."""
        self._share: Share | None = None  # None: not connected, or a link, which admission counts
        self._deadline: asyncio.TimerHandle | None = None  # of the head of a request
        self._taken: asyncio.TimerHandle | None = None  # of reading the answer
        self._unsent = 0
        self.address = ""
        self.idle_since = 0.0

    @property
    def request_s(self) -> float:
        """Seconds that a client may take for a request's body."""
        return self._limits.request_s

    @property
    def strangers(self) -> Share:
        """The share of connections without a credential."""
        return self._limits.strangers

    # --- shares --------------------------------------------------------------------------------------------------

    def credential_accepted(self) -> bool:
        """Count the connection as that of a guest, being served: a request on it has shown a credential.

        Returns False, and changes nothing, when as many other guests are being served.
        """
        guests = self._limits.guests
        if self._share is self._limits.strangers:
            if guests.count >= guests.most and not guests.shed_one():
                return False
            self._enter(guests)
            guests.work(self)
        return True

    def may_become_link(self) -> None:
        """Keep the connection while its request, whose credential was accepted, waits to become a link."""
        if self._share is not None:
            self._share.work(self)

    def became_link(self) -> None:
        """Count the connection in no share: admission counts links."""
        self._enter(None)

    def shed(self) -> None:
        """Close the connection for another one."""
        if self.transport is not None:
            self.transport.abort()

    def _rest(self, share: Share) -> None:
        self.idle_since = asyncio.get_running_loop().time()
        share.rest(self)

    def _enter(self, share: Share | None) -> None:
        if self._share is not None:
            self._share.leave(self)
        self._share = share
        if share is not None:
            share.enter(self)

    # --- the order of a connection -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.idle_since = asyncio.get_running_loop().time()
        self._await_head()
        self._enter(self._limits.strangers)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_arrived()
        self._stop_watching()
        self._enter(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is None and self._waiter is not None and not self._waiter.done():
            self._await_head()  # a part of it has arrived

    def request_arrived(self) -> None:
        """Stop waiting for a request: the head of one has been read."""
        self._head_arrived()
        if self._share is self._limits.guests:
            self._share.work(self)
        elif self._share is not None:  # a stranger may be shed at any time: it may not read the answer
            self._rest(self._share)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if self.transport is None:
            return finished
        if self._share is None:  # it was a link
            self._enter(self._limits.guests)
        if self._share is not None:
            self._rest(self._share)
        return finished

    # --- deadlines -----------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._limits.request_s, self.shed)

    def _head_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taken is None and self._share is not None:  # the hub and the drain have limits of their own for links
            self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def _watch_reader(self) -> None:
        if self.transport is not None:
            self._unsent = self.transport.get_write_buffer_size()
            self._taken = asyncio.get_running_loop().call_later(_TAKEN_S, self._check_reader)

    def _check_reader(self) -> None:
        if self.transport is None:
            return
        if self._unsent - self.transport.get_write_buffer_size() < _TAKEN_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching(self) -> None:
        if self._taken is not None:
            self._taken.cancel()
            self._taken = None


def guarded(request: web.BaseRequest) -> GuardedHandler:
    """Return the connection of a request."""
    protocol = request.protocol
    if not isinstance(protocol, GuardedHandler):  # without request_arrived, it would close every connection
        raise TypeError(f"the connection is a {type(protocol).__name__}; make it with `protocol_factory`")
    return protocol


def is_unwanted(request: web.BaseRequest) -> bool:
    """Whether a request has a body that was not read, and is not so small that the next request can follow it."""
    if request.content.is_eof():
        return False
    return request.content_length is None or request.content_length > SMALL_BODY_BYTES


async def read_body(request: web.BaseRequest, limit: int) -> bytearray:
    """Read a body; stop as soon as it is too long. Return when a turn has time for it: many may end at the same time.

    Raises:
        BadRequest: It comes in more chunks than a body needs.
        TooLarge: It has more than `limit` bytes.
        SlowRequest: It has not arrived in the time for a request.
        web.RequestPayloadError: It does not match its headers.
    """
    body, chunks = bytearray(), 0
    if request.content.at_eof():  # also: aiohttp's stream for no body yields chunks without end
        return body
    within_s = guarded(request).request_s
    try:
        async with asyncio.timeout(within_s):
            async for piece, ends_chunk in request.content.iter_chunks():
                body += piece
                if len(body) > limit:
                    raise TooLarge(limit)
                chunks += ends_chunk
                if chunks > _CHUNKS:
                    raise BadRequest(f"the body comes in more than {_CHUNKS} chunks; send larger ones, or its length")
    except TimeoutError as error:
        raise SlowRequest(within_s) from error
    if body:
        await guarded(request).turns.wait()
    return body
