"""nats-py's client, which takes every error of a closed socket for a lost connection.

nats-py was written for asyncio, whose transports ignore writes after their end. uvloop raises `RuntimeError` there, and
nats-py then stops writing, reading or reconnecting for good, or raises it from `close`. So its transport is wrapped:
writes to a closed one are dropped, and whatever else fails is a `ConnectionError`, which nats-py handles.
Overrides private methods; without them an installed nats-py behaves as it does by itself.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import ParseResult

from nats.aio.client import Client
from nats.aio.transport import Transport
from nats.errors import Error as NatsError

_KNOWN: Final = (OSError, NatsError)
"""What nats-py expects of a transport. TimeoutError is an OSError."""


class CheckedTransport(Transport):
    """A transport of nats-py. Only the library's code runs inside the wrapped one, so all that it raises is a loss."""

    def __init__(self, inner: Transport, *, is_closing: Callable[[], bool]) -> None:
        """Wrap `inner`; while `is_closing` returns True, `drain` does not report that bytes were not sent."""
        self.inner = inner
        self._is_closing = is_closing
        self._write_error: Exception | None = None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self.close()  # an attempt that failed after this leaves its socket open
        self._write_error = None
        with _loss():
            await self.inner.connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        self._write_error = None
        with _loss():
            await self.inner.connect_tls(uri, ssl_context, buffer_size, connect_timeout)

    def write(self, payload: Any) -> None:
        """Take bytes; drop them when the connection is closed, as asyncio does. `drain` then raises."""
        try:
            self.inner.write(payload)
        except Exception as error:  # noqa: BLE001 - see the class
            self._write_error = error

    def writelines(self, payload: Any) -> None:
        try:
            self.inner.writelines(payload)
        except Exception as error:  # noqa: BLE001 - see the class
            self._write_error = error

    async def read(self, buffer_size: int) -> bytes:
        try:  # not `_loss`: this is called for every packet
            return await self.inner.read(buffer_size)
        except _KNOWN:
            raise
        except Exception as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    async def readline(self) -> bytes:
        with _loss():
            return await self.inner.readline()

    async def drain(self) -> None:
        """Wait until the socket has taken most of what was written.

        Raises:
            ConnectionError: The connection is lost.
        """
        try:
            with _loss():
                if self._write_error is not None:
                    raise self._write_error
                await self.inner.drain()  # type: ignore[no-untyped-call]
        except OSError:
            if not self._is_closing():
                raise

    async def wait_closed(self) -> None:
        with _loss():
            await self.inner.wait_closed()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        with suppress(Exception):  # it is closed already, or was never opened
            self.inner.close()  # type: ignore[no-untyped-call]

    def at_eof(self) -> bool:
        try:
            return bool(self.inner.at_eof())
        except Exception:  # noqa: BLE001 - see the class
            return True

    def __getattr__(self, name: str) -> Any:
        """Return a private part of the wrapped transport, see `roundlog.client.nats_internals.abort`."""
        return getattr(self.inner, name)

    def __bool__(self) -> bool:
        return bool(self.inner)


class CheckedClient(Client):
    """nats-py's client over a `CheckedTransport`."""

    async def _connect_to_server(self, s: Any) -> None:
        with _loss():
            await super()._connect_to_server(s)
        transport = self._transport
        if transport is not None and not isinstance(transport, CheckedTransport):
            self._transport = CheckedTransport(transport, is_closing=lambda: self.is_closed)

    async def _read_loop(self) -> None:
        await super()._read_loop()
        # It also ends on an exception that nats-py does not know, and would leave a connection that nobody reads.
        if self.is_connected and self._reading_task is asyncio.current_task():
            await self._process_op_err(ConnectionError("reading of the connection has ended"))

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # its flush was given up; nats-py would complete it again and fail
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


@contextmanager
def _loss() -> Iterator[None]:
    """Raise `ConnectionError` for every exception in the block that is not one of `_KNOWN`."""
    try:
        yield
    except _KNOWN:
        raise
    except Exception as error:
        raise ConnectionError(f"{str(error) or type(error).__name__}") from error
