"""A replication connection that holds no large logical messages of other applications: they are dropped on arrival.

Owns the simple query protocol and COPY BOTH over a transport that asyncpg has opened. libpq, which other streams use,
puts every message together in memory. What is kept of a message is in `wire_reader`. Knows nothing of rounds.
Why: docs/adr/0038-logical-messages-on-request.md
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, Self

import asyncpg

from backends.postgres.encodings import RAW, UTF_8, codec_of, readable
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.protocol.asyncpg_takeover import connect_for_replication, take_over
from backends.postgres.replication.protocol.pgoutput import InvalidMessage
from backends.postgres.replication.protocol.replication_connection import (
    NoAnswer,
    Record,
    ServerError,
    StreamLost,
    first_line,
    lossy,
)
from backends.postgres.replication.protocol.wire_reader import (
    ServerMessage,
    WireReader,
    client_message,
    column_names,
    column_values,
    fields_of,
)
from backends.postgres.session_settings import TRANSACTION_TIMEOUT, TRANSACTION_TIMEOUT_SINCE, session_settings

_FRAMES: Final = 1000
_BYTES: Final = 256 << 10
"""Limits of one `receive`. Reading pauses while so many bytes wait to be received."""
_CLOSE_S: Final = 0.2

_lossy: Final = partial(
    lossy,
    errors=(
        OSError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.ClientConfigurationError,
    ),
)

_COPY_BOTH, _COPY_DONE, _COMPLETE, _ERROR, _NOTICE, _READY, _ROW, _COLUMNS = b"WcCENZDT"


class BoundedConnection(asyncio.Protocol):
    """A connection made by `connect`. Its members do what those of `ReplicationConnection` do."""

    def __init__(self, prefix: bytes, limit_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = WireReader(prefix, limit_bytes)
        self._transport: asyncio.Transport
        self._on_notice: Callable[[str, str], None] = lambda _, __: None
        self._answers: list[ServerMessage] = []
        self._waiter: asyncio.Future[None] | None = None
        self._lost = self._loop.create_future()
        self._failure: StreamLost | None = None
        self._loss: StreamLost | None = None
        self._is_paused = self._is_streaming = self._ended = self._is_closed = False
        self._data_at = self._loop.time()
        self.codec = UTF_8
        self.pid = 0

    @classmethod
    async def connect(
        cls, options: PostgresOptions, *, prefix: str, limit_bytes: int, settings: Mapping[str, str] | None = None
    ) -> Self:
        """Connect within ``connect_timeout_s``.

        Args:
            options: The database and the timeout.
            prefix: The prefix of the logical messages that are read.
            limit_bytes: The largest content of such a message; of larger ones only the size is kept.
            settings: Settings of the session, in addition to those of `backends.postgres.session_settings`.

        Raises:
            StreamLost: The server cannot be reached, or rejects us.
            SourceError: The installed asyncpg cannot be used.
        """
        timeout_s = options.connect_timeout_s
        try:
            with _lossy(f"cannot connect to {options.shown_dsn}"):
                async with asyncio.timeout(timeout_s):
                    connection = await connect_for_replication(options, {**session_settings(), **(settings or {})})
                    encoding = connection.get_settings().server_encoding
                    codec = codec_of(encoding)
                    link = cls(prefix.encode(codec or UTF_8, "backslashreplace"), limit_bytes)
                    link.pid = connection.get_server_pid()
                    link._transport = take_over(connection, link)
                    await link._prepare(codec, connection.get_server_version()[0], timeout_s)
            return link
        except TimeoutError:
            raise StreamLost(f"no answer from {options.shown_dsn} within {timeout_s:g} s") from None

    @property
    def is_lost(self) -> bool:
        return self._failure is not None

    @property
    def silent_s(self) -> float:
        return 0.0 if self._waiter is None else self._loop.time() - self._data_at

    def on_notice(self, callback: Callable[[str, str], None]) -> None:
        self._on_notice = callback

    async def _prepare(self, codec: str | None, version: int, timeout_s: float) -> None:
        try:
            if codec is not None:
                await self.query(f"SET client_encoding TO '{RAW}'", timeout_s)
                self.codec = codec
            if version >= TRANSACTION_TIMEOUT_SINCE // 10000:
                await self.query(TRANSACTION_TIMEOUT, timeout_s)
        except BaseException:
            await self.close()
            raise

    # --- queries ------------------------------------------------------------------------------------------------

    async def query(self, sql: str, timeout_s: float) -> list[Record]:
        """Run one statement; return its rows as text. After a timeout the connection can only be closed.

        Raises:
            ServerError: The server rejected it; the connection remains usable.
            StreamLost: The connection broke, or no answer came within `timeout_s`.
        """
        names: list[str] = []
        rows: list[Record] = []
        for kind, body in await self._run(sql, timeout_s):
            if kind == _COLUMNS:
                names = [readable(name, self.codec) for name in column_names(body)]
            elif kind == _ROW:
                values = [None if value is None else readable(value, self.codec) for value in column_values(body)]
                rows.append(dict(zip(names, values, strict=True)))
        return rows

    async def start(self, command: str, timeout_s: float) -> None:
        """Run a command that begins a stream; from then on only `receive`, `send`, `fail` and `close` may be called.

        Raises:
            ServerError: The server rejected it; the connection remains usable.
            StreamLost: As for `query`.
        """
        await self._run(command, timeout_s)
        if not self._is_streaming:
            raise StreamLost("the server answered START_REPLICATION without a stream")
        self._data_at = self._loop.time()

    async def _run(self, sql: str, timeout_s: float) -> list[ServerMessage]:
        answers: list[ServerMessage] = []
        error: ServerError | None = None
        try:
            with _lossy():
                async with asyncio.timeout(timeout_s):
                    self._write(client_message(b"Q", sql.encode(self.codec, "backslashreplace") + b"\0"))
                    while not self._is_streaming:
                        if not self._answers:
                            if self._loss is not None:
                                raise error or self._loss
                            await self._wait()
                            continue
                        answer = self._answers.pop(0)
                        if answer.kind == _READY:
                            break
                        answers.append(answer)
                        if answer.kind == _ERROR:
                            error = _server_error(answer.body)
        except TimeoutError:
            raise NoAnswer(f"no answer from the server within {timeout_s:g} s") from None
        if error is not None:
            raise error
        return answers

    # --- the stream ---------------------------------------------------------------------------------------------

    async def receive(self) -> list[bytes]:
        """Wait without limit for frames; return those that arrived, at least one.

        Reads a bounded amount. The rest waits in the socket and in the server for the next call.

        Raises:
            ServerError: The server ended the stream.
            StreamLost: The connection broke, or `fail` was called.
        """
        with _lossy():
            while True:
                if self._failure is not None:
                    raise self._failure
                if frames := self._reader.take(_FRAMES, _BYTES):
                    self._read_on()
                    return frames
                if self._loss is not None or self._ended:
                    raise await self._why_ended()
                await self._wait()

    def send(self, frame: bytes) -> None:
        """Send a status frame without waiting. It is dropped while the last one is unsent: the next one replaces it.

        Raises:
            StreamLost: The connection broke.
        """
        if self._ended:
            return
        if self._loss is not None:
            raise self._loss
        with _lossy():
            if not self._transport.get_write_buffer_size():
                self._write(client_message(b"d", frame))

    def fail(self, failure: StreamLost) -> None:
        """Make the pending `receive` raise, or the next one."""
        self._failure = failure
        self._wake()

    async def close(self, last: bytes | None = None) -> None:
        """Close. If `last` is given, send this frame first, and give the server 0.2 s to read it."""
        lost, self._failure = self._failure is not None, self._failure or StreamLost("the stream was left")
        try:
            if last is not None and not lost:
                self.send(last)
                await self._finish_copy()
        except (StreamLost, TimeoutError):
            pass  # already lost: the server will send the unconfirmed rows again
        finally:
            if not self._is_closed:
                self._is_closed = True
                with suppress(StreamLost, TimeoutError), _lossy():
                    if self._loss is None:
                        self._write(client_message(b"X"))
                        self._transport.abort()  # what the kernel has not taken is of no use to a server that is stuck
                    async with asyncio.timeout(_CLOSE_S):
                        await self._lost

    async def _finish_copy(self) -> None:
        """End the stream from our side and read to its end, since closing with unread input can discard our output."""
        with _lossy():
            async with asyncio.timeout(_CLOSE_S):
                if not self._ended:
                    self._write(client_message(b"c"))
                while not self._ended and self._loss is None:
                    while self._reader.take(_FRAMES, _BYTES):
                        pass
                    self._read_on()
                    await self._wait()

    async def _why_ended(self) -> StreamLost:
        """Wait for the error that the server may send after the end of the stream, and return the reason."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while True:
                    for kind, body in self._answers:
                        if kind == _ERROR:
                            return _server_error(body)
                    if self._loss is not None or any(kind == _READY for kind, _ in self._answers):
                        break
                    await self._wait()
        return StreamLost("the server ended the stream") if self._ended else self._loss or StreamLost("lost")

    def _write(self, message: bytes) -> None:
        if self._transport.is_closing():
            raise self._loss or StreamLost("connection lost: the connection is closed")
        self._transport.write(message)

    def _read_on(self) -> None:
        if self._is_paused and self._reader.frames_bytes < _BYTES:
            self._is_paused = False
            self._transport.resume_reading()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        self._data_at = self._loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- called by the transport --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._data_at = self._loop.time()
        try:
            others = self._reader.feed(data)
            for message in others:
                self._on_message(message)
        except InvalidMessage as error:
            self._loss = StreamLost(f"connection lost: {error}")
            self._transport.abort()
        if self._reader.frames_bytes >= _BYTES and not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()
        if self._reader.frames or others or self._loss is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        reason = first_line(exc) if exc is not None else "the server closed the connection"
        self._loss = self._loss or StreamLost(f"connection lost: {reason}")
        if not self._lost.done():
            self._lost.set_result(None)
        self._wake()

    def _on_message(self, message: ServerMessage) -> None:
        kind, body = message
        if kind == _NOTICE:
            fields = fields_of(body)
            self._on_notice(fields.get("C", b"").decode(), fields.get("M", b"").decode(errors="replace"))
        elif kind == _COPY_BOTH:
            self._is_streaming = True
        elif kind in (_COLUMNS, _ROW, _ERROR, _READY):
            self._answers.append(message)
        if self._is_streaming and kind in (_COPY_DONE, _COMPLETE, _ERROR, _READY):
            self._ended = True


def _server_error(body: bytes) -> ServerError:
    fields = fields_of(body)
    message = fields.get("M", b"the server gave no reason").decode(errors="replace")
    return ServerError(fields.get("C", b"").decode(), message)
