"""The private parts of nats-py that the fast paths use: with `checked_client`, the only module that touches any.

nats-py spends more time on a message than all that follows. So frames of rounds and acks are read from a connection's
bytes before nats-py's own parser, and publishes are written to its transport. nats-py keeps signing in, TLS, pings and
reconnecting. Each part is looked for before it is used. Where an installed nats-py lacks one, a warning is logged and
the caller uses the public API, which is slower and delivers the same.
Measured in docs/benchmarks.md; decided in docs/adr/0003-own-publish-pipeline.md and 0007-read-pages-past-nats-py.md
"""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final, Protocol

import structlog
from nats.aio.client import Client
from nats.errors import ProtocolError

from roundlog.client.faults import translated

log = structlog.get_logger()

TRIED: Final = ">=2.15,<2.17"
"""The versions of nats-py whose private parts are known; the same range as in ``pyproject.toml``."""

_AT_ONCE: Final = 1 << 16
_PAUSES: Final = ("is_reading", "pause_reading", "resume_reading", "is_closing", "get_extra_info")

ReadFrames = Callable[[bytes, int], int]
"""Take whole frames from an offset in the bytes on; return the offset of the first that was not taken.

That one is not ours, or not complete yet. Runs inside the reading of the socket and must not raise.
"""


class FrameParser(Protocol):
    """What nats-py's read loop calls of its parser."""

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read from the socket."""

    def reset(self) -> None:
        """Forget half a frame: the connection that would bring the rest is lost."""


class ConnectionParser:
    """Stands before nats-py's parser, and passes to it, frame by frame, what `read_frames` does not take."""

    def __init__(self, parser: FrameParser, read_frames: ReadFrames, half_frame: bytes = b"") -> None:
        self.was_called = False
        self._is_busy = False
        self._parser = parser
        self._read_frames = read_frames
        self._held = half_frame

    def reset(self) -> None:
        self._parser.reset()
        self._held, self._is_busy = b"", False

    async def parse(self, data: bytes = b"") -> None:
        """Read as many whole frames as there are; keep the rest for the next call."""
        self.was_called = self._is_busy = True
        if self._held:
            data = self._held + data
        at = self._read_frames(data, 0)
        while at < len(data) and (end := _frame_end(data, at)) is not None:
            await self._parser.parse(data[at:end])
            at = self._read_frames(data, end)
        self._held, self._is_busy = data[at:], False

    def take(self, data: bytes) -> bytes:
        """Read the whole frames of `data` up to the first that is not ours; return the rest, which `parse` is to read.

        All that came before was parsed. While `parse` waits for nats-py, nothing is taken. Half a frame is kept.
        """
        if self._is_busy:
            return data
        if self._held:
            data, self._held = self._held + data, b""
        rest = data[self._read_frames(data, 0) :]
        with suppress(ProtocolError):  # `parse` raises it
            if rest and _frame_end(rest, 0) is None:
                self._held, rest = rest, b""
        return rest


def _frame_end(data: bytes, at: int) -> int | None:
    """Return where the frame that begins at `at` ends; None when it is not complete."""
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    end = line_end + 2
    if data.startswith((b"MSG ", b"HMSG "), at):
        size = data[data.rfind(b" ", at, line_end) + 1 : line_end]
        if not size.isdigit():
            raise ProtocolError
        end += int(size) + 2
    return end if end <= len(data) else None


async def attach(client: Client, read_frames: ReadFrames) -> bool:
    """Let `read_frames` read all that comes on a connection that waits for no message; verify that it does.

    Returns:
        False when nats-py lacks a part or does not use it. All messages then come through its subscriptions.

    Raises:
        LogUnavailable: The connection is lost, or the server does not answer.
    """
    own: Any = getattr(client, "_ps", None)
    half_frame = getattr(own, "buf", None)
    if not (callable(getattr(own, "parse", None)) and callable(getattr(own, "reset", None))) or half_frame is None:
        with translated("the connection to NATS was lost"):
            await client.flush()
        return _lacks("Client._ps")
    parser = ConnectionParser(own, read_frames, bytes(half_frame))
    own.reset()
    client._ps = parser  # type: ignore[assignment]  # noqa: SLF001 - see the module's docstring
    with translated("the connection to NATS was lost"):
        await client.flush()  # its answer has to come through the parser
    if not parser.was_called:
        client._ps = own  # noqa: SLF001
        return _lacks("a read loop that uses Client._ps")
    return True


def read_at_once(client: Client) -> bool:
    """Let frames that `attach` reads be read as soon as they come, until the connection is lost.

    nats-py's own task reads them in the next turn of the event loop, behind all that is due then. Returns False where
    nats-py does not read with asyncio's streams, as over WebSocket: then it is as before.
    """
    parser: Any = getattr(client, "_ps", None)
    reader: Any = getattr(getattr(client, "_transport", None), "_io_reader", None)
    if not isinstance(parser, ConnectionParser) or not isinstance(getattr(reader, "_buffer", None), bytearray):
        return False
    feed: Callable[[bytes], None] = reader.feed_data

    def feed_data(data: bytes) -> None:
        if not reader._buffer:  # noqa: SLF001 - all that came before was read
            data = parser.take(data)
        if data:
            feed(data)

    reader.feed_data = feed_data
    return True


class HeldReading:
    """Keeps the event loop from reading a connection, and reads it when it is asked to: no wake-up for each message.

    What has come waits in the kernel. It takes the same way as what the event loop reads, in the same order. Get it
    from `holdable`.
    """

    def __init__(self, transport: Any, feed: Callable[[bytes], None], file: int) -> None:
        self._transport = transport
        self._feed = feed
        self._file = file
        self.is_on = False

    def hold(self) -> None:
        """Stop the event loop from reading."""
        # Asked each time: asyncio's stream begins to read by itself, when it had much that was not parsed yet.
        if self._transport.is_reading():
            with suppress(RuntimeError):  # uvloop, when it is closed
                self._transport.pause_reading()
                self.is_on = True

    def release(self) -> None:
        """Have the event loop read again."""
        if self.is_on:
            self.is_on = False
            with suppress(RuntimeError):
                self._transport.resume_reading()

    def read(self) -> bool:
        """Read what has come, at most 64 KB, while the event loop does not; return whether there may be more.

        At the end of the connection, the event loop reads again, and finds it too.
        """
        if not self.is_on:
            return False
        if self._transport.is_closing():  # its file descriptor may be of another connection by now
            self.is_on = False
            return False
        try:
            data = os.read(self._file, _AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._feed(data)
        else:
            self.release()
        return len(data) == _AT_ONCE


def holdable(client: Client) -> HeldReading | None:
    """Return what can hold the reading of a connection, after `read_at_once`, until it is lost; None where nothing can.

    Over TLS, bytes of the socket are not those of the connection.
    """
    streams: Any = getattr(client, "_transport", None)
    transport: Any = getattr(getattr(streams, "_io_writer", None), "transport", None)
    feed = getattr(getattr(streams, "_io_reader", None), "feed_data", None)
    if not callable(feed) or not all(callable(getattr(transport, name, None)) for name in _PAUSES):
        return None
    found = transport.get_extra_info("socket")
    if found is None or transport.get_extra_info("sslcontext") is not None:
        return None
    return HeldReading(transport, feed, found.fileno())


class Writer(Protocol):
    """Takes bytes for the socket of a connection, past nats-py's buffer."""

    def write(self, payload: bytes) -> None:
        """Take bytes without waiting."""

    async def drain(self) -> None:
        """Wait until the socket has taken most of them."""


def has_writer(client: Client) -> bool:
    """Say whether `writer_of` works for this connection, which must be open; log a warning when it does not."""
    writer = writer_of(client)
    return all(callable(getattr(writer, name, None)) for name in ("write", "drain")) or _lacks("Client._transport")


def writer_of(client: Client) -> Writer | None:
    """Return the writer of a connection; None when there is none, or none any more."""
    return getattr(client, "_transport", None)


def abort(client: Client) -> None:
    """Close the socket at once, with bytes unsent. Does nothing where nats-py lacks the parts: closing takes longer."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        # A closed transport raises AttributeError (TLS in CPython up to 3.11.2) or RuntimeError (uvloop).
        with suppress(AttributeError, RuntimeError):
            writer.transport.abort()


def drop_unsent(client: Client, after_s: float) -> None:
    """Have the kernel drop what it has not sent when the socket is closed, and when it could not send for `after_s`.

    Otherwise it sends the rest after we have closed the socket, after the process was killed, and for a quarter of an
    hour while a network is away. https://www.man7.org/linux/man-pages/man7/tcp.7.html
    """
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    found = None if writer is None else writer.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(after_s * 1000)))


def _lacks(part: str) -> bool:
    log.warning("nats_fast_path_off", missing=part, nats_py=version("nats-py"), tried=TRIED)
    return False
