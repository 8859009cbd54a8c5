"""Check that the installed `websockets` reads frames as `relay.http.websocket.frames` uses it.

What that uses is not documented and may change in any release; without this check every WebSocket would fail while the
relay is ready. Why after the start, and not before: docs/adr/0013-websockets-reads-client-frames.md
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final

from relay.errors import StartError
from relay.http.tested_versions import tested_range

_UNMASKED: Final = bytes(4)
"""A mask that changes nothing."""
_WIRE: Final = b"".join(
    (
        b"\x41\x83" + _UNMASKED + b"\xf2\x48\xcd",  # "Hello", deflated, in two fragments: RFC 7692 section 7.2.3.1
        b"\x89\x80" + _UNMASKED,  # a ping between them
        b"\x80\x84" + _UNMASKED + b"\xc9\xc9\x07\x00",
        b"\x8a\x80" + _UNMASKED,  # a pong
        b"\x82\x81" + _UNMASKED + b"\x00",  # a binary message that is not compressed
        b"\x88\x82" + _UNMASKED + b"\x03\xe8",  # a close frame with code 1000
    )
)
_MESSAGES: Final = [("PING", b""), ("TEXT", b"Hello"), ("PONG", b""), ("BINARY", b"\x00"), ("CLOSE", b"\x03\xe8")]


async def check_websockets_after(ready: Callable[[], Awaitable[None]]) -> None:
    """Wait until the relay is ready, then do `check_websockets` in a thread: its import takes 10 to 15 ms of CPU.

    Raises:
        StartError: As `check_websockets`.
    """
    await ready()
    await asyncio.to_thread(check_websockets)


def check_websockets() -> None:
    """Import what a WebSocket needs, and read frames of every kind.

    Raises:
        StartError: That failed; the text has the first error, the installed version and the tested range.
    """
    try:
        from relay.http.websocket import websocket_link  # noqa: F401 - the first link finds it imported
        from relay.http.websocket.frames import FrameReader

        read = [(message.opcode.name, message.data) for message in FrameReader(max_size=5, deflate=True).feed(_WIRE)]
        if read != _MESSAGES:
            raise ValueError(f"frames are read as {read}")
    except Exception as error:
        raise StartError(
            f"websockets {version('websockets')} cannot read frames as this relay uses it ({error}); "
            f"install websockets {tested_range('websockets')}, which it is tested with"
        ) from error
