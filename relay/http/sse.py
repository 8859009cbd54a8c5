"""Rounds over Server-Sent Events: ``GET /sse/{game}``, ``/sse/type/{type}``, ``/sse``.

Owns the SSE side of the contract: first bytes, comments, and an end after which an EventSource reconnects. Blocks are
written straight to the transport, since all links share them: docs/adr/0010-links-leave-aiohttp.md
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from relay.links.stream_link import StreamLink
from relay.live.encode import LAST_CHUNK, SSE_COMMENT, SseBlock, chunk
from relay.live.link import CloseReason, Disconnect, LinkEnder

HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "Connection": "close",
    "X-Accel-Buffering": "no",  # nginx would collect the stream otherwise
}


class SseLink(StreamLink):
    """An open event stream."""

    __slots__ = ("_chunked",)

    def __init__(self, transport: asyncio.Transport, ender: LinkEnder, *, chunked: bool, max_age_s: float) -> None:
        super().__init__(transport, SseBlock(chunked), ender, max_age_s=max_age_s)
        self._chunked = chunked

    def eof_received(self) -> bool:
        """Keep the stream of a client that has closed its sending side only; one that has left resets the comment."""
        return self.ended is None and self.heartbeat()

    def write(self, block: bytes) -> None:
        """Write a block for this client alone."""
        self.transport.write(chunk(block) if self._chunked else block)

    def send_event(self, event: Mapping[str, object]) -> None:
        self.write(_event_block(event))

    def heartbeat(self) -> bool:
        if not self.transport.get_write_buffer_size():
            self.write(SSE_COMMENT)
        return True  # SSE has no answers; TCP_USER_TIMEOUT finds a dead peer

    def write_disconnect(self, disconnect: Disconnect) -> None:
        if disconnect.reason is CloseReason.COMPLETED:
            # With an id even when no round was sent: an EventSource reconnects with it, and then gets 204.
            end = {"event": "end", "reason": disconnect.reason, "cursor": disconnect.cursor}
            self.write(b"id: %b\n%b" % (str(disconnect.cursor).encode(), _event_block(end)))
        self.write(retry_line(disconnect.retry_ms))
        if self._chunked:
            self.transport.write(LAST_CHUNK)
        self.transport.close()


def refusal(retry_ms: int) -> web.Response:
    """Answer 200, ``retry`` and the end: the only answer after which an EventSource waits and reconnects."""
    headers = {name: value for name, value in HEADERS.items() if name != "Connection"}
    response = web.Response(body=retry_line(retry_ms), headers=headers)
    response.force_close()
    return response


def nothing_left() -> web.Response:
    """Answer 204, after which an EventSource does not reconnect (HTML standard, section 9.2.3)."""
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


def retry_line(retry_ms: int) -> bytes:
    """Render how long an EventSource waits before it reconnects. After an error status it would not reconnect."""
    return b"retry: %d\n\n" % retry_ms


def _event_block(event: Mapping[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["event"]).encode(), msgspec.json.encode(event))
