"""A stream of HTTP/2 as the transport of a connection of HTTP/1.1 with one request."""

import asyncio
from typing import Any, Final

from relay.http.over_http2.http1_answer import AnswerHead, Http1Answer
from relay.http2 import Http2Code, Http2Stream
from relay.links.intake import Intake

_HIGH_BYTES: Final = 64 << 10


class StreamTransport(asyncio.Transport):
    """Translates what is written; closes when the answer is over."""

    __slots__ = ("_answer", "_high", "_is_closing", "_is_lost", "_is_reading", "_protocol", "_resumes", "stream")

    def __init__(self, stream: Http2Stream, answer: Http1Answer) -> None:
        super().__init__()
        self.stream = stream
        self._answer = answer
        self._protocol: Intake | None = None
        self._high = _HIGH_BYTES
        self._is_closing = self._is_lost = False
        self._is_reading = True
        self._resumes: asyncio.Task[None] | None = None

    def begin(self, protocol: Intake) -> None:
        """Connect."""
        self._protocol = protocol
        protocol.connection_made(self)

    def lose(self, error: Exception | None) -> None:
        """Disconnect, in a later turn, as transports do."""
        self._is_closing = True
        if not self._is_lost:
            self._is_lost = True
            asyncio.get_running_loop().call_soon(self._call_lost, error)

    def _call_lost(self, error: Exception | None) -> None:
        if self._resumes is not None:
            self._resumes.cancel()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._is_closing:
            return
        for part in self._answer.read(bytes(data)):
            if isinstance(part, AnswerHead):
                self.stream.send_headers(part.fields, ended=self._answer.is_over)
            else:
                self.stream.write(part.data)
        if self._resumes is None and self.stream.queued_bytes > self._high and self._protocol is not None:
            self._resumes = asyncio.create_task(self._resume())
            self._protocol.pause_writing()
        if self._answer.is_over:
            self._end()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    async def _resume(self) -> None:
        await self.stream.drained()
        self._resumes = None
        if self._protocol is not None:
            self._protocol.resume_writing()

    def write_eof(self) -> None:
        self._end()

    def can_write_eof(self) -> bool:
        return True

    def _end(self) -> None:
        """End the stream after what was written; one whose answer is not whole by a reset.

        Until all was sent, its handler counts the bytes.
        """
        self._is_closing = True
        if self._answer.may_end:
            self.stream.end()
        else:
            self.stream.reset_later(Http2Code.INTERNAL_ERROR)
        if self.stream.is_over():
            self.lose(None)
        else:
            self.stream.on_done = self._sent

    def _sent(self) -> None:
        self.lose(None)

    def close(self) -> None:
        if not self._is_closing:
            self._end()

    def abort(self) -> None:
        if not self._is_lost:
            self.stream.reset(Http2Code.CANCEL)
            self.lose(None)

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return self.stream.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH_BYTES if high is None else high

    # --- reading -------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        self._is_reading = False
        self.stream.hold()

    def resume_reading(self) -> None:
        self._is_reading = True
        self.stream.proceed()

    def is_reading(self) -> bool:
        return self._is_reading

    # --- facts ---------------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self.stream.get_extra_info(name)
        return default if found is None else found

    def get_protocol(self) -> Any:
        return self._protocol
