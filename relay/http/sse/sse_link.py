"""Rounds over Server-Sent Events: ``GET /sse/{game}``, ``/sse/type/{type}``, ``/sse``.

Owns the SSE side of the contract: first bytes, comments, the client's place outside rounds, and an end after which the
client reconnects. Blocks are written straight to the transport, since all links share them:
docs/adr/0010-links-leave-aiohttp.md. What suits which client is decided in `sse_client`.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from relay.http.security_headers import BASE
from relay.http.sse.sse_client import PlaceForm, SseClient
from relay.links.stream_link import StreamLink
from relay.live.encode import LAST_CHUNK, SSE_COMMENT, SseBlock, chunk
from relay.live.link import CloseReason, Disconnect, LinkEnder

HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "Connection": "close",
    "X-Accel-Buffering": "no",  # nginx would collect the stream otherwise
    **BASE,
}

_UNFINISHED_BYTES: Final = 16 << 10
"""Id lines between two rounds of a quiet stream. Parsers that wait for the blank line often take 64 KB at most."""


class SseLink(StreamLink):
    """An open event stream."""

    __slots__ = ("_chunked", "_client", "_sent_cursor", "_unfinished")

    def __init__(
        self, transport: asyncio.Transport, client: SseClient, ender: LinkEnder, *, chunked: bool, max_age_s: float
    ) -> None:
        super().__init__(transport, SseBlock(chunked), ender, max_age_s=max_age_s)
        self.heartbeat_s = client.heartbeat_s
        self._chunked = chunked
        self._client = client
        self._sent_cursor = ""
        """The last cursor that was sent outside rounds."""
        self._unfinished = 0

    def eof_received(self) -> bool:
        """Keep the stream of a client that has closed its sending side only; one that has left resets the comment."""
        return self.ended is None and self.heartbeat()

    def write(self, block: bytes) -> None:
        """Write a block for this client alone."""
        self.transport.write(chunk(block) if self._chunked else block)

    def begin(self, retry_ms: int, cursor: str | None) -> None:
        """Write the first bytes, with which proxies pass the headers on; `cursor`: where the stream starts, if known.

        A client that is sent events gets the cursor with the hello event.
        """
        place = b"" if cursor is None or self._client.place is PlaceForm.EVENT else self._place(cursor)
        self.write(retry_line(retry_ms) + place + SSE_COMMENT)

    def send_event(self, event: Mapping[str, object]) -> None:
        block = _event_block(event)
        if self._client.place is PlaceForm.EVENT and (cursor := self._cursor()) is not None:
            self._sent_cursor = cursor
            block = _id_line(cursor) + block
        self.write(block)

    def heartbeat(self) -> bool:
        if not self.transport.get_write_buffer_size():
            self.write(self.comment())
        return True  # SSE has no answers; TCP_USER_TIMEOUT finds a dead peer

    def comment(self) -> bytes:
        """Render a heartbeat: a comment, and the client's place where that has moved."""
        cursor = self._cursor()
        moved = cursor is not None and cursor != self._sent_cursor
        return SSE_COMMENT + self._place(cursor) if cursor is not None and moved else SSE_COMMENT

    def write_disconnect(self, disconnect: Disconnect) -> None:
        cursor, completed = disconnect.cursor, disconnect.reason is CloseReason.COMPLETED
        stops = completed or disconnect.reason is CloseReason.REVOKED  # and libraries may return for good
        last = b""
        if completed:
            # With an id even when no round was sent: an EventSource reconnects with it, and then gets 204.
            end = {"event": "end", "reason": disconnect.reason, "cursor": cursor}
            last = b"id: %b\n%b" % (str(cursor).encode(), _event_block(end))
        elif cursor is not None:
            last = self._place(cursor)
        self.write(last + retry_line(disconnect.retry_ms) + _blank_line(self._client))
        if not self._chunked or self._client.clean_end or stops:
            self.finish()
        self.transport.close()

    def finish(self) -> None:
        """Write the end of the body."""
        if self._chunked:
            self.transport.write(LAST_CHUNK)

    def _cursor(self) -> str | None:
        cursor = None if self.cursor is None else self.cursor()
        return None if cursor is None else str(cursor)

    def _place(self, cursor: str) -> bytes:
        """Render the client's place as it takes it."""
        self._sent_cursor = cursor
        line, form = _id_line(cursor), self._client.place
        if form is PlaceForm.BLOCK:
            return line + b"\n"
        if form is PlaceForm.EVENT:
            return line + _event_block({"event": "cursor", "cursor": cursor})
        self._unfinished += len(line)
        return line if self._unfinished <= _UNFINISHED_BYTES else b""


def refuse(transport: asyncio.Transport, client: SseClient, head: bytes, retry_ms: int, *, chunked: bool) -> None:
    """Write an answer of `head` and ``retry``, and close: the only answer after which an EventSource comes back."""
    line = retry_line(retry_ms)
    transport.write(head + (chunk(line) if chunked else line))
    if chunked and client.clean_end:
        transport.write(LAST_CHUNK)
    transport.close()


def nothing_left() -> web.Response:
    """Answer 204, after which an EventSource does not reconnect (HTML standard, section 9.2.3)."""
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


def retry_line(retry_ms: int) -> bytes:
    """Render how long an EventSource waits before it reconnects. After an error status it would not reconnect.

    Parsers take it without a blank line. With one, some would make an event of it.
    """
    return b"retry: %d\n" % retry_ms


def _blank_line(client: SseClient) -> bytes:
    return b"\n" if client.place is PlaceForm.BLOCK else b""


def _id_line(cursor: str) -> bytes:
    return b"id: %b\n" % cursor.encode("ascii")


def _event_block(event: Mapping[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["event"]).encode(), msgspec.json.encode(event))
