"""One replication connection: simple queries first, then a stream of frames in both directions.

Owns all use of psycopg. psycopg connects; the rest drives libpq directly, since psycopg's own waits do not support COPY
BOTH and cannot be cancelled when a server is silent. Knows nothing of rounds.
Why so: docs/adr/0006-psycopg-copy-both.md
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import DiagnosticField, ExecStatus

from backends.postgres.encodings import RAW, UTF_8, codec_of, readable
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.session_settings import (
    TRANSACTION_TIMEOUT,
    TRANSACTION_TIMEOUT_SINCE,
    as_options,
    session_settings,
)
from roundlog.client.library_errors import means_lost

_FRAMES: Final = 1000
_BYTES: Final = 256 << 10
_TLS_READS: Final = 3
_CLOSE_S: Final = 0.2

Record = Mapping[str, str | None]


class StreamLost(Exception):
    """The connection broke or could not be made; a new one may work. ``str()`` says why."""


class NoAnswer(StreamLost):
    """The server has not answered a query in time, and may still run it."""


class ServerError(StreamLost):
    """The server rejected a query or ended the stream, with a reason."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(sqlstate, message)
        self.sqlstate, self.message = sqlstate, message

    def __str__(self) -> str:
        return f"{self.message} ({self.sqlstate})" if self.sqlstate else self.message


class ReplicationConnection:
    """A connection to one database, made by `connect`. Call `close` when done, also after an error."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        # A descriptor of our own: libpq closes its own when the connection is lost, and another connection may then get
        # the same number while ours is still registered with the event loop.
        self._fd = os.dup(self._libpq.socket)
        self._loop = asyncio.get_running_loop()
        self._reads = _TLS_READS if self._libpq.ssl_in_use else 1
        self._waiter: asyncio.Future[None] | None = None
        self._failure: StreamLost | None = None
        self._unsent = False
        self._ended = False
        self._is_closed = False
        self._data_at = self._loop.time()
        self.codec = UTF_8
        """The codec of all text of the database: the server converts nothing. UTF-8 where it has to convert."""
        self.pid = self._libpq.backend_pid
        """The process id of the server process."""

    @classmethod
    async def connect(
        cls, options: PostgresOptions, *, replication: bool = True, settings: Mapping[str, str] | None = None
    ) -> Self:
        """Connect within ``connect_timeout_s``.

        Args:
            options: The database and the timeout.
            replication: Whether `start` will be called; requires a role with REPLICATION.
            settings: Settings of the session, in addition to those of `backends.postgres.session_settings`.

        Raises:
            StreamLost: The server cannot be reached, or rejects us.
        """
        dsn = options.dsn.get_secret_value()
        try:
            with lossy(f"cannot connect to {options.shown_dsn}"):
                # libpq reads PGOPTIONS only when the parameter is not given. What is last wins.
                given = conninfo_to_dict(dsn).get("options") or os.environ.get("PGOPTIONS", "")
                own = as_options({**session_settings(), **(settings or {})})
                async with asyncio.timeout(options.connect_timeout_s):
                    connection = await psycopg.AsyncConnection.connect(
                        dsn,
                        autocommit=True,
                        options=f"{given} {own}".strip(),
                        application_name="stream-relay",
                        client_encoding=RAW,
                        replication="database" if replication else None,
                    )
                    link = cls(connection)
                    await link._prepare(options.connect_timeout_s)
                return link
        except TimeoutError:
            raise StreamLost(f"no answer from {options.shown_dsn} within {options.connect_timeout_s:g} s") from None

    @property
    def is_lost(self) -> bool:
        """Whether `fail` or `close` was called: the connection is no longer usable."""
        return self._failure is not None

    @property
    def silent_s(self) -> float:
        """How long the pending `receive` has been without data; 0: none is pending."""
        return 0.0 if self._waiter is None else self._loop.time() - self._data_at

    def on_notice(self, callback: Callable[[str, str], None]) -> None:
        """Call `callback` with the SQLSTATE and the text of each notice or warning; the text may be translated."""
        self._connection.add_notice_handler(
            lambda notice: callback(notice.sqlstate or "", notice.message_primary or "")
        )

    async def _prepare(self, timeout_s: float) -> None:
        codec = codec_of((self._libpq.parameter_status(b"server_encoding") or b"UTF8").decode())
        try:
            if codec is None:
                await self.query("SET client_encoding TO 'UTF8'", timeout_s)
            else:
                self.codec = codec
            if self._libpq.server_version >= TRANSACTION_TIMEOUT_SINCE:
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
        result = await self._run(sql, timeout_s)
        codec = self.codec
        names = [readable(result.fname(column) or b"", codec) for column in range(result.nfields)]
        return [
            {
                name: None if (value := result.get_value(row, column)) is None else readable(value, codec)
                for column, name in enumerate(names)
            }
            for row in range(result.ntuples)
        ]

    async def start(self, command: str, timeout_s: float) -> None:
        """Run a command that begins a stream; from then on only `receive`, `send`, `fail` and `close` may be called.

        Raises:
            ServerError: The server rejected it; the connection remains usable.
            StreamLost: As for `query`.
        """
        result = await self._run(command, timeout_s)
        if result.status != ExecStatus.COPY_BOTH:
            raise StreamLost(f"the server answered START_REPLICATION with {ExecStatus(result.status).name}")
        self._data_at = self._loop.time()

    async def _run(self, sql: str, timeout_s: float) -> Any:
        try:
            with lossy():
                async with asyncio.timeout(timeout_s):
                    self._libpq.send_query(sql.encode(self.codec, "backslashreplace"))
                    while self._libpq.flush():
                        await self._wait(self._loop.add_writer, self._loop.remove_writer)
                    result = await self._result()
                    if result is None:
                        raise StreamLost("the server gave no answer")
                    if result.status == ExecStatus.COPY_BOTH:
                        return result
                    while await self._result() is not None:
                        pass  # one statement has one result, and then None
        except TimeoutError:
            raise NoAnswer(f"no answer from the server within {timeout_s:g} s") from None
        if result.status == ExecStatus.FATAL_ERROR:
            raise _server_error(result)
        return result

    async def _result(self) -> Any:
        while self._libpq.is_busy():
            await self._wait(self._loop.add_reader, self._loop.remove_reader)
            self._libpq.consume_input()
        return self._libpq.get_result()

    # --- the stream ---------------------------------------------------------------------------------------------

    async def receive(self) -> list[bytes]:
        """Wait without limit for frames; return those that arrived, at least one.

        Reads a bounded amount. The rest waits in the socket and in the server for the next call.

        Raises:
            ServerError: The server ended the stream.
            StreamLost: The connection broke, or `fail` was called.
        """
        with lossy():
            while True:
                if self._failure is not None:
                    raise self._failure
                frames = self._buffered()
                if self._failure is not None:
                    raise self._failure  # set by a notice among these frames
                if frames:
                    return frames
                if self._ended:
                    raise await self._why_ended()
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                for _ in range(self._reads):
                    # One TLS record may be larger than one read, and data buffered by the TLS library does not make
                    # the socket readable.
                    self._libpq.consume_input()
                self._data_at = self._loop.time()

    def send(self, frame: bytes) -> None:
        """Send a status frame without waiting. It is dropped while the last one is unsent: the next one replaces it.

        Raises:
            StreamLost: The connection broke.
        """
        if self._unsent or self._ended:
            return
        with lossy():
            self._libpq.put_copy_data(frame)
            self._flush()

    def fail(self, failure: StreamLost) -> None:
        """Make the pending `receive` raise, or the next one."""
        self._failure = failure
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
                # The number is reused at once: a handler that stays in the loop would break another connection.
                self._loop.remove_reader(self._fd)
                self._loop.remove_writer(self._fd)
                os.close(self._fd)
                with suppress(StreamLost), lossy():
                    await self._connection.close()

    async def _finish_copy(self) -> None:
        """End the stream from our side and read to its end, since closing with unread input can discard our output."""
        if self._unsent or self._ended:
            return
        with lossy():
            async with asyncio.timeout(_CLOSE_S):
                self._libpq.put_copy_end()
                self._flush()
                while not self._ended:
                    await self._wait(self._loop.add_reader, self._loop.remove_reader)
                    self._libpq.consume_input()
                    while self._buffered():
                        pass

    def _buffered(self) -> list[bytes]:
        frames: list[bytes] = []
        size = 0
        get = self._libpq.get_copy_data
        while not self._ended and size < _BYTES and len(frames) < _FRAMES:
            count, data = get(1)
            if count > 0:
                frames.append(bytes(data))
                size += count
            elif count == 0:
                break
            else:
                self._ended = True
        return frames

    async def _why_ended(self) -> StreamLost:
        with suppress(StreamLost, TimeoutError), lossy():
            async with asyncio.timeout(_CLOSE_S):
                result = await self._result()
            if result is not None and result.status == ExecStatus.FATAL_ERROR:
                return _server_error(result)
        return StreamLost("the server ended the stream")

    def _flush(self) -> None:
        self._unsent = bool(self._libpq.flush())
        if self._unsent:
            self._loop.add_writer(self._fd, self._flush_more)

    def _flush_more(self) -> None:
        try:
            with lossy():
                self._unsent = bool(self._libpq.flush())
        except StreamLost as error:
            self.fail(error)
            self._unsent = False
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        self._waiter = self._loop.create_future()
        self._data_at = self._loop.time()
        add(self._fd, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            if not self._is_closed:  # else the number may belong to another connection now
                remove(self._fd)
            self._waiter = None


@contextmanager
def lossy(
    context: str = "connection lost", *, errors: tuple[type[Exception], ...] = (psycopg.Error, OSError)
) -> Iterator[None]:
    """Raise `StreamLost` for what the library and the event loop raise in the block when a connection cannot be used.

    `errors` are those of the library. A TimeoutError passes: it is the caller's own.
    """
    try:
        yield
    except TimeoutError:
        raise
    except errors as error:
        raise StreamLost(f"{context}: {first_line(error)}") from error
    except BaseException as error:
        if not means_lost(error):
            raise
        raise StreamLost(f"{context}: {first_line(error)}") from error


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _server_error(result: Any) -> ServerError:
    state = result.error_field(DiagnosticField.SQLSTATE) or b""
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"the server gave no reason"
    return ServerError(state.decode(), message.decode(errors="replace"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
