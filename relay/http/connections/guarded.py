"""What a client may hold of an HTTP connection: its place, time for a request and an answer, and unread bytes.

Owns the deadlines and sizes of a connection before it becomes a link, and which share it is counted in: strangers until
a credential of one of its requests was accepted, then guests. Does not know paths, nor the answer to malformed requests
(`relay.http.protocol`). Why: docs/adr/0017-shares-of-strangers.md
"""

import asyncio
import fcntl
import sys
import termios
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from aiohttp import web

from relay.admission.held_bytes import LEAST_BYTES, HeldBytes
from relay.admission.strangers import Share
from relay.errors import BadRequest, SlowRequest, TooLarge
from relay.http.connections.deadlines import Deadlines
from relay.http.connections.quick_refusals import QuickAnswer
from relay.links.intake import Receiver
from relay.turns import Turns

SMALL_BODY_BYTES: Final = 4 << 10
"""The largest body where none is needed, as of ``POST /api/auth/token``."""
_CHUNKS: Final = 256
"""Chunks of a body. Most have one or two; each takes several microseconds, however small it is."""
_UNREAD_BYTES: Final = 16 << 10
"""Twice that much of a body is read before its handler takes it: it may never do. aiohttp's own value is 256 KB."""
_COPIES: Final = 2
"""How often aiohttp has the bytes of a request that is not whole, and of an answer that is not written."""
_HEAD_BYTES: Final = 256
"""Of an answer."""
_HELD_BYTES: Final = 8 << 20
"""Where few clients come: the port of probes."""
_TAKEN_S: Final = 10.0
_TAKEN_BYTES: Final = 16 << 10
"""A client that does not take this much of an answer in `_TAKEN_S` is cut: the largest takes 4 min at most."""


class AnswersHeads(Protocol):
    """See `relay.http.early.early_answers`."""

    def answer(self, data: bytes, connection: "GuardedHandler") -> QuickAnswer | None:
        """Return the answer to a request that begins with `data`; None when it is to be handled as usual."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits that all connections share."""

    strangers: Share
    guests: Share
    request_s: float
    """Time for the head of a request, and again for its body."""
    held: HeldBytes = field(default_factory=lambda: HeldBytes(_HELD_BYTES))
    """Of requests that are not whole, and of answers that are not read."""
    answers: AnswersHeads | None = None
    """Answers requests of which all is in the first bytes."""
    http2: Callable[["GuardedHandler"], Receiver] | None = None
    """Makes what a connection is given to that begins as HTTP/2 does, of its handler. None: it is malformed."""
    heads: Deadlines["GuardedHandler"] = field(init=False)
    """Connections whose client has the time for the head of a request."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", Deadlines[GuardedHandler](self.request_s, GuardedHandler.shed))


class GuardedHandler(web.RequestHandler):
    """aiohttp's handler of one connection, within `ConnectionLimits`."""

    __slots__ = (
        "_answered",
        "_limits",
        "_options",
        "_request_bytes",
        "_server",
        "_share",
        "_taken",
        "_unsent",
        "address",
        "begun",
        "idle_since",
        "is_last",
        "is_usual",
        "peer",
        "turns",
    )

    transport: asyncio.Transport | None

    def __init__(self, server: web.Server, limits: ConnectionLimits, turns: Turns, **options: Any) -> None:
        # Not aiohttp's part, which costs more than most requests: see `begin_usual`.
        self._server = server
        self._options = options
        self.transport = None
        self.is_usual = False
        """Whether aiohttp handles this connection: a request was not answered from its head alone."""
        self._limits = limits
        self.turns = turns
        """The share of each turn of the loop that requests have."""
        self._share: Share | None = None  # None: not connected, or a link, which admission counts
        self._taken: asyncio.TimerHandle | None = None  # of reading the answer
        self._unsent = 0
        self._request_bytes = 0  # of one that is not whole
        self._answered = 0  # bytes of answers since it was looked at how many are not read
        self.peer = ""
        """The address of the connection."""
        self.address = ""
        """That of the client whose request came last."""
        self.idle_since = 0.0
        self.begun: object = None
        """The request that is about to be read, as far as it was decided from its head."""
        self.is_last = False
        """Whether the connection is closed after the next answer."""

    @property
    def request_s(self) -> float:
        """Seconds that a client may take for a request's body."""
        return self._limits.request_s

    @property
    def strangers(self) -> Share:
        """The share of connections without a credential."""
        return self._limits.strangers

    @property
    def is_guest(self) -> bool:
        """Whether a request on it has shown a credential, and it is no link."""
        return self._share is self._limits.guests

    def answer_is_last(self) -> None:
        """Close the connection after the next answer, so that its client gets it."""
        self.is_last = True

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
        if share is None:
            self._request_bytes = 0
            self._limits.held.release(self)
        self._share = share
        if share is not None:
            share.enter(self)

    # --- bytes -----------------------------------------------------------------------------------------------------

    def holds(self, request_bytes: int) -> None:
        """Count the bytes of a request that is not whole; 0: it is."""
        if request_bytes >= LEAST_BYTES or self._request_bytes >= LEAST_BYTES:
            self._request_bytes = request_bytes
            self._limits.held.look_at(self)

    def held_bytes(self) -> int:
        """Return the bytes of its request, and of answers that its client has not acknowledged."""
        if self.transport is None:
            return 0
        ours = self._request_bytes + self.transport.get_write_buffer_size()
        return _COPIES * ours + _unacknowledged(self.transport.get_extra_info("socket").fileno())

    def _look_at_unread(self, answer_bytes: int) -> None:
        """Count answers that are not read. Small ones are looked at together: each look costs a system call."""
        self._answered += answer_bytes
        if self._answered >= LEAST_BYTES:
            self._answered = 0
            self._limits.held.look_at(self)

    # --- the order of a connection -------------------------------------------------------------------------------

    def begin_usual(self) -> None:
        """Let aiohttp handle this connection from now on."""
        transport = self.transport
        super().__init__(self._server, lingering_time=0, read_bufsize=_UNREAD_BYTES, **self._options)
        self.is_usual = True
        if transport is not None:
            super().connection_made(transport)
            if self._taken is not None:  # it has paused writing
                super().pause_writing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # as of any stream
        peer = transport.get_extra_info("peername")
        self.peer = self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.idle_since = asyncio.get_running_loop().time()
        self._await_head()
        self._enter(self._limits.strangers)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_arrived()
        self._stop_watching()
        self._enter(None)
        if self.is_usual:
            super().connection_lost(exc)
        self.transport = None

    def head_begun(self) -> None:
        """Give the client the time for a request: a part of the head of one has been read, and nothing else waits."""
        if self.transport is not None and self not in self._limits.heads:
            self._await_head()

    def request_arrived(self) -> None:
        """Stop waiting for a request: the head of one has been read."""
        self._head_arrived()
        if self._share is self._limits.guests:
            self._share.work(self)
        elif self._share is not None:  # a stranger may be shed at any time: it may not read the answer
            self._rest(self._share)

    def answered(self, answer_bytes: int) -> None:
        """Note that a request was answered as soon as its head was read: its client is idle again."""
        self._head_arrived()
        if self._share is not None:
            self._rest(self._share)
            self._look_at_unread(answer_bytes)

    def came_for(self, address: str) -> None:
        """Count the connection as one of a client: its request has come through a trusted proxy."""
        if address == self.address or self._share is None:
            return
        self._share.work(self)  # shares find their members by address
        self.address = address
        if self._share is self._limits.strangers:
            self._rest(self._share)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            finished = await super().finish_response(request, resp, start_time)
        except BaseException as error:
            # aiohttp keeps the error, and its traceback the answer: both would wait for Python's garbage collector.
            traceback.clear_frames(error.__traceback__)
            if isinstance(resp, web.Response):
                resp.body = None
            raise
        if self.transport is None:
            return finished
        if self._share is None:  # it was a link
            self._enter(self._limits.guests)
        if self._share is not None:
            self._rest(self._share)
            self._look_at_unread(_HEAD_BYTES + resp.body_length)
        return finished

    # --- deadlines -----------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        self._limits.heads.begin(self)

    def _head_arrived(self) -> None:
        self._limits.heads.end(self)

    def pause_writing(self) -> None:
        if self.is_usual:
            super().pause_writing()
        if self._taken is None and self._share is not None:  # the hub and the drain have limits of their own for links
            self._watch_reader()
            self._limits.held.look_at(self)

    def resume_writing(self) -> None:
        if self.is_usual:
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


def _unacknowledged(file: int) -> int:
    """Return how many bytes the kernel has for the client of a socket and may have to send again (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(file, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
    except OSError:  # it is closed, or the system does not have this
        return 0


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
                guarded(request).holds(len(body))
                chunks += ends_chunk
                if chunks > _CHUNKS:
                    raise BadRequest(f"the body comes in more than {_CHUNKS} chunks; send larger ones, or its length")
    except TimeoutError as error:
        raise SlowRequest(within_s) from error
    finally:
        guarded(request).holds(0)
    if body:
        await guarded(request).turns.wait()
    return body
