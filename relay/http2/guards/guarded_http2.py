"""The place of an HTTP/2 connection: strangers until one of its streams has shown a credential, then guests.

Owns which share a connection is counted in, and how many bytes of unfinished requests it holds. Does not know what a
credential is. Why: docs/adr/0017-shares-of-strangers.md
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from relay.admission.held_bytes import LEAST_BYTES, HeldBytes
from relay.admission.strangers import Share
from relay.http2.header_blocks import HeaderFields
from relay.http2.http2_connections import Http2Connections
from relay.http2.http2_protocol import Http2Protocol
from relay.http2.http2_stream import Http2Service, Http2Stream, Standing


@dataclass(frozen=True, slots=True)
class ConnectionGuards:
    """What all connections of a port share."""

    strangers: Share
    guests: Share
    """The same one as `strangers` where a port has a number of connections of its own."""
    held: HeldBytes
    """Of requests that are not whole."""

    @property
    def counts_links(self) -> bool:
        """Whether connections of links are counted here too: where the port has a number of connections of its own."""
        return self.guests is self.strangers


class GuardedHttp2(Http2Protocol):
    """A connection within `ConnectionGuards`."""

    __slots__ = ("_guards", "_kept", "_links", "_share", "address", "idle_since")

    def __init__(self, service: Http2Service, connections: Http2Connections, guards: ConnectionGuards) -> None:
        super().__init__(service, connections)
        self._guards = guards
        self._share: Share | None = None  # None: not connected, or a connection of links, which admission counts
        self._kept = 0  # open streams whose client has shown a credential
        self._links = 0  # those of them that are links
        self.address = ""
        self.idle_since = 0.0

    # --- for `Http2Stream` ---------------------------------------------------------------------------------------

    def credential_accepted(self, stream: Http2Stream) -> bool:
        if stream.standing is not Standing.STRANGER or stream.is_over():
            return True
        guests = self._guards.guests
        if self._share is not guests and self._share is self._guards.strangers:
            if guests.count >= guests.most and not guests.has_idle:
                return False
            self._enter(guests)
        stream.standing = Standing.GUEST
        self._kept += 1
        if self._share is not None:
            self._share.work(self)
        return True

    def became_link(self, stream: Http2Stream) -> None:
        if stream.standing is Standing.LINK or stream.is_over():
            return
        if stream.standing is Standing.STRANGER:
            self._kept += 1
        stream.standing = Standing.LINK
        self._links += 1
        if self._share is not None:
            if self._guards.counts_links:
                self._share.work(self)
            else:
                self._enter(None)

    # --- for `Share` and `HeldBytes` -----------------------------------------------------------------------------

    def shed(self) -> None:
        """Cut the connection for another one."""
        self.abort()

    def held_bytes(self) -> int:
        """Return the bytes of a frame or header block that is not whole."""
        return len(self._rest) + (self._block[1] if self._block is not None else 0)

    # --- the order of a connection -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.idle_since = asyncio.get_running_loop().time()
        self._enter(self._guards.strangers)

    def connection_lost(self, exc: Exception | None) -> Callable[[], None] | None:
        self._enter(None)
        self._guards.held.release(self)
        return super().connection_lost(exc)

    def data_received(self, data: bytes) -> bool:
        has_more = super().data_received(data)
        if (self._rest or self._block is not None) and self.held_bytes() >= LEAST_BYTES and self.closed_at is None:
            self._guards.held.look_at(self)  # which looks again until it is less
        return has_more

    def _begin(self, stream_id: int, headers: HeaderFields, *, ended: bool) -> None:
        if self._share is not None and not self._kept:
            self._rest_now(self._share)
        super()._begin(stream_id, headers, ended=ended)

    def _forget(self, stream: Http2Stream) -> None:
        super()._forget(stream)
        if stream.standing is Standing.STRANGER:
            return
        self._kept -= 1
        if stream.standing is Standing.LINK:
            self._links -= 1
        if self.closed_at is not None:
            return
        if self._share is None and not self._links:
            self._enter(self._guards.guests)
            if self._kept:
                self._guards.guests.work(self)
        elif self._share is not None and not self._kept:
            self._rest_now(self._share)

    def _rest_now(self, share: Share) -> None:
        self.idle_since = asyncio.get_running_loop().time()
        share.rest(self)

    def _enter(self, share: Share | None) -> None:
        if self._share is not None:
            self._share.leave(self)
        self._share = share
        if share is not None:
            share.enter(self)
