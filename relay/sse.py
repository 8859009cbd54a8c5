"""Rounds over Server-Sent Events: ``GET /sse/{game}``, ``/sse/type/{type}``, ``/sse``.

Owns the SSE side of the contract: first bytes, comments, how a stream ends so that an EventSource comes back. Written
straight to the transport, since one block is shared by all links: docs/adr/0005-sse-on-plain-aiohttp.md
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import HttpVersion11, web

from relay.encode import SSE_COMMENT, SseBlock, chunk
from relay.link import CloseReason, Drain, Goodbye, Link

HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would collect the stream otherwise
}


class SseLink(Link):
    """An open event stream."""

    __slots__ = ("_chunked", "_finished")

    def __init__(self, transport: asyncio.WriteTransport, *, chunked: bool, max_age_s: float, drain: Drain) -> None:
        super().__init__(transport, SseBlock(chunked), max_age_s=max_age_s, drain=drain)
        self._chunked = chunked
        self._finished = asyncio.get_running_loop().create_future()

    def write(self, block: bytes) -> None:
        """Write a block that is for this client alone."""
        self.transport.write(chunk(block) if self._chunked else block)

    def tell(self, event: Mapping[str, object]) -> None:
        self.write(_event_block(event))

    def heartbeat(self) -> bool:
        if not self.transport.get_write_buffer_size():
            self.write(SSE_COMMENT)
        return True  # SSE has no answer; a dead peer is found by TCP_USER_TIMEOUT

    def say_goodbye(self, goodbye: Goodbye) -> None:
        if goodbye.reason is CloseReason.COMPLETED:
            # With an id even when no round was sent: an EventSource comes back, and is then told by 204 to stay away.
            end = {"event": "end", "reason": goodbye.reason, "cursor": goodbye.cursor}
            self.write(b"id: %b\n%b" % (str(goodbye.cursor).encode(), _event_block(end)))
        self.write(retry_line(goodbye.retry_ms))
        if not self._finished.done():
            self._finished.set_result(None)

    async def finished(self) -> None:
        """Wait until the link has been ended by us. A client that leaves cancels this."""
        await self._finished


async def open_stream(request: web.Request) -> web.StreamResponse:
    """Answer 200 with the headers of an event stream."""
    response = web.StreamResponse(headers=HEADERS)
    response.force_close()
    await response.prepare(request)
    return response


def open_link(request: web.Request, *, max_age_s: float, retry_ms: int) -> SseLink:
    """Begin the stream that was just answered and return its link; raise ConnectionResetError when the client left."""
    if request.transport is None:
        raise ConnectionResetError("the client left during the handshake")
    link = SseLink(
        request.transport,
        chunked=request.version >= HttpVersion11,
        max_age_s=max_age_s,
        drain=request.writer.drain,
    )
    link.write(retry_line(retry_ms) + SSE_COMMENT)  # at once, so that proxies pass the headers on
    return link


def nothing_left() -> web.Response:
    """Answer 204, after which an EventSource stays away for good (HTML standard, section 9.2.3)."""
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


def _event_block(event: Mapping[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["event"]).encode(), msgspec.json.encode(event))


def retry_line(retry_ms: int) -> bytes:
    """Tell an EventSource how long to wait before it reconnects.

    Followed by the end of a 200 it is the only way to send one away for a while: any error status ends it for good.
    """
    return b"retry: %d\n\n" % retry_ms
