"""One replication connection: simple queries first, then a stream of frames in both directions.

Owns all use of psycopg. It connects; what follows drives libpq itself, since psycopg's own waits know no COPY BOTH and
cannot be abandoned when a server is silent. Knows nothing of rounds. Why so: docs/adr/0006-psycopg-copy-both.md
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import DiagnosticField, ExecStatus

from backends.postgres.mapping import SESSION
from backends.postgres.options import PostgresOptions

_FRAMES: Final = 1000
_BYTES: Final = 256 << 10
_TLS_READS: Final = 3
_GOODBYE_S: Final = 0.2

Record = Mapping[str, str | None]


class StreamLost(Exception):
    """The connection cannot be used any more, or never came to be; a new one may do. ``str()`` says why."""


class NoAnswer(StreamLost):
    """The server took a query and has not answered it in time; it may be at it still."""


class ServerError(StreamLost):
    """The server refused a query or ended the stream, and said why."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(sqlstate, message)
        self.sqlstate, self.message = sqlstate, message

    def __str__(self) -> str:
        return f"{self.message} ({self.sqlstate})" if self.sqlstate else self.message


class ReplicationConnection:
    """A connection to one database. Made by `connect`; `close` it whatever happened."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._fd = self._libpq.socket
        self._loop = asyncio.get_running_loop()
        self._reads = _TLS_READS if self._libpq.ssl_in_use else 1
        self._waiter: asyncio.Future[None] | None = None
        self._failure: StreamLost | None = None
        self._unsent = False
        self._ended = False
        self._heard_at = self._loop.time()
        self.pid = self._libpq.backend_pid
        """The server's process at the other end."""

    @classmethod
    async def connect(
        cls, options: PostgresOptions, *, replication: bool = True, settings: Mapping[str, str] | None = None
    ) -> Self:
        """Connect within ``connect_timeout_s``.

        Args:
            options: Where to, and for how long to try.
            replication: Whether this is to become a stream; only a role with REPLICATION may.
            settings: Settings of the session, besides those that reading rows needs.

        Raises:
            StreamLost: Nobody there, or we are not let in.
        """
        dsn = options.dsn.get_secret_value()
        try:
            given = conninfo_to_dict(dsn).get("options") or ""
            words = [f"-c {name}={value.replace(' ', '')}" for name, value in {**SESSION, **(settings or {})}.items()]
            async with asyncio.timeout(options.connect_timeout_s):
                connection = await psycopg.AsyncConnection.connect(
                    dsn,
                    autocommit=True,
                    options=" ".join([str(given), *words]).strip(),
                    application_name="stream-relay",
                    client_encoding="UTF8",
                    replication="database" if replication else None,
                )
        except TimeoutError:
            raise StreamLost(f"no answer from {options.shown_dsn} within {options.connect_timeout_s:g} s") from None
        except psycopg.Error as error:
            raise StreamLost(f"cannot connect to {options.shown_dsn}: {_first_line(error)}") from error
        return cls(connection)

    @property
    def is_lost(self) -> bool:
        """Whether `fail` was called: this link will never be of use again."""
        return self._failure is not None

    @property
    def silent_s(self) -> float:
        """For how long a `receive` has been waiting for anything at all; 0 when nobody waits."""
        return 0.0 if self._waiter is None else self._loop.time() - self._heard_at

    def on_notice(self, callback: Callable[[str], None]) -> None:
        """Have `callback` called with the text of each notice or warning of the server, as it is read."""
        self._connection.add_notice_handler(lambda notice: callback(notice.message_primary or ""))

    # --- queries ------------------------------------------------------------------------------------------------

    async def query(self, sql: str, timeout_s: float) -> list[Record]:
        """Run one statement; return its rows as text. After a timeout the link is of no use but to be closed.

        Raises:
            ServerError: The server refused it; the link can be used on.
            StreamLost: The connection broke, or no answer came within `timeout_s`.
        """
        result = await self._run(sql, timeout_s)
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        return [
            {
                name: None if (value := result.get_value(row, column)) is None else value.decode()
                for column, name in enumerate(names)
            }
            for row in range(result.ntuples)
        ]

    async def start(self, command: str, timeout_s: float) -> None:
        """Run a command that begins a stream; from then on `receive` and `send` are what may be called.

        Raises:
            ServerError: The server refused it; the link can be used on.
            StreamLost: As for `query`.
        """
        result = await self._run(command, timeout_s)
        if result.status != ExecStatus.COPY_BOTH:
            raise StreamLost(f"the server answered START_REPLICATION with {ExecStatus(result.status).name}")
        self._heard_at = self._loop.time()

    async def _run(self, sql: str, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                self._libpq.send_query(sql.encode())
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
        except psycopg.Error as error:
            raise StreamLost(f"connection lost: {_first_line(error)}") from error
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
        """Return the frames that have come, at least one, waiting for it however long.

        Takes a bounded number from the socket; the rest waits there, and in the server, for the next call.

        Raises:
            ServerError: The server ended the stream.
            StreamLost: The connection broke, or `fail` was called.
        """
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                frames = self._buffered()
                if self._failure is not None:
                    raise self._failure  # a notice that came among these frames
                if frames:
                    return frames
                if self._ended:
                    raise await self._why_ended()
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                for _ in range(self._reads):
                    # With TLS one record may be more than one read takes, and what the TLS library holds makes no
                    # socket readable.
                    self._libpq.consume_input()
                self._heard_at = self._loop.time()
        except psycopg.Error as error:
            raise StreamLost(f"connection lost: {_first_line(error)}") from error

    def send(self, frame: bytes) -> None:
        """Send a frame without waiting. When the server does not read, it is dropped: the next one says more.

        Raises:
            StreamLost: The connection broke.
        """
        if self._unsent or self._ended:
            return
        try:
            self._libpq.put_copy_data(frame)
            self._flush()
        except psycopg.Error as error:
            raise StreamLost(f"connection lost: {_first_line(error)}") from error

    def fail(self, failure: StreamLost) -> None:
        """Make the pending `receive` raise, or the next one."""
        self._failure = failure
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def close(self, last: bytes | None = None) -> None:
        """Close, after sending a `last` frame to a stream and giving the server a moment to read it."""
        lost, self._failure = self._failure is not None, self._failure or StreamLost("the stream was left")
        try:
            if last is not None and not lost:
                self.send(last)
                await self._say_goodbye()
        except (StreamLost, psycopg.Error, TimeoutError):
            pass  # it was lost already: what the server has not heard it will send again
        finally:
            # A descriptor is used again at once: one left in the loop would break another connection.
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            with suppress(psycopg.Error):
                await self._connection.close()

    async def _say_goodbye(self) -> None:
        """End the stream from our side and read to its end, since closing with unread input can discard our output."""
        if self._unsent or self._ended:
            return
        async with asyncio.timeout(_GOODBYE_S):
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
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                result = await self._result()
            if result is not None and result.status == ExecStatus.FATAL_ERROR:
                return _server_error(result)
        return StreamLost("the server ended the stream")

    def _flush(self) -> None:
        self._unsent = bool(self._libpq.flush())
        if self._unsent:
            self._loop.add_writer(self._fd, self._flush_on)

    def _flush_on(self) -> None:
        try:
            self._unsent = bool(self._libpq.flush())
        except psycopg.Error as error:
            self.fail(StreamLost(f"connection lost: {_first_line(error)}"))
            self._unsent = False
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        self._waiter = self._loop.create_future()
        self._heard_at = self._loop.time()
        add(self._fd, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            remove(self._fd)
            self._waiter = None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _server_error(result: Any) -> ServerError:
    state = result.error_field(DiagnosticField.SQLSTATE) or b""
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"the server gave no reason"
    return ServerError(state.decode(), message.decode(errors="replace"))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
