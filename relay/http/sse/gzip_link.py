"""Event streams with ``Content-Encoding: gzip``: what is written to one link alone, beside the stream that links share.

Owns the member of each link (RFC 1952): its header, its blocks, its checksum and length. A text for one link alone puts
it out of step with its channel, so comments are written for all links of a channel at once.
Why: docs/adr/0047-a-window-that-links-share.md
"""

from typing import TYPE_CHECKING

from relay.http.sse.sse_client import SseClient
from relay.http.sse.sse_link import SseLink
from relay.live.compression.checksum import Checksum
from relay.live.compression.sse_gzip import SseGzip
from relay.live.encode import SSE_COMMENT
from relay.live.link import Link, LinkEnder

if TYPE_CHECKING:
    import asyncio

    from relay.live.compression.shared_stream import SharedStream


class GzipSseLink(SseLink):
    """An open event stream that is compressed."""

    __slots__ = ("_begin", "_left_at", "_own")

    form: SseGzip

    def __init__(
        self, transport: "asyncio.Transport", client: SseClient, ender: LinkEnder, *, chunked: bool, max_age_s: float
    ) -> None:
        super().__init__(transport, client, ender, chunked=chunked, max_age_s=max_age_s)
        self.form = _form(chunked, client)
        self._own = Checksum()  # without what came by the shared stream since `_begin`
        self._begin = Checksum()  # of the shared stream, when this link joined it or was last written to alone
        self._left_at: Checksum | None = None  # of a stream that the link has left

    def write(self, block: bytes) -> None:
        data = self.form.each([block])
        self._settle()
        self.transport.write(data if self._own.size else self.form.begin() + data)
        self._own = self._own.with_data(block)
        if self.stream is not None:
            self.stream.put_out_of_step(self)

    def write_past(self, data: bytes, checksum: Checksum | None = None) -> None:
        super().write_past(data)
        if checksum is not None:
            self._settle()
            self._own = self._own.with_part(Checksum(), checksum)

    def share(self, stream: "SharedStream[Link] | None") -> None:
        if self.stream is not None:
            if self.stream.comments is not None:
                self.stream.comments.leave(self, SSE_COMMENT)
            self._left_at = self.stream.checksum  # used only if something more is written
        super().share(stream)
        if stream is not None:
            self._settle_left()
            self._begin = stream.checksum

    def heartbeat(self) -> bool:
        if self.stream is None or self.stream.comments is None:
            return super().heartbeat()
        self.stream.comments.beat(self, self.comment)
        return True

    def finish(self) -> None:
        self._settle()
        self.transport.write(self.form.end(self._own))
        super().finish()

    def _settle(self) -> None:
        """Add what came by the shared stream."""
        if self.stream is not None:
            now = self.stream.checksum
            self._own, self._begin = self._own.with_part(self._begin, now), now
        else:
            self._settle_left()

    def _settle_left(self) -> None:
        if self._left_at is not None:
            self._own, self._left_at = self._own.with_part(self._begin, self._left_at), None


def _form(chunked: bool, client: SseClient) -> SseGzip:
    return SseGzip(chunked, f"{client.place.name} {client.heartbeat_s}")
