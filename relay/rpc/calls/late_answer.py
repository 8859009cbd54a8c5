"""The answer to a call that was refused by its headers: sent with the first bytes of its request, or soon.

grpcio reports an error of its own, INTERNAL, for a call that ends before it has sent a message. Most clients send the
message with the headers, so that nearly no answer waits.
"""

import asyncio
from typing import Final

from relay.http2 import HeaderFields, Http2Stream

_SOON_S: Final = 0.05
"""Longer than a client takes from the headers to the message, and short for one that sends none."""


class LateAnswer:
    """The receiver of the rest of a request."""

    __slots__ = ("_fields", "_stream", "_timer")

    def __init__(self, stream: Http2Stream, fields: HeaderFields) -> None:
        """`fields` are all of the answer."""
        self._stream = stream
        self._fields = fields
        self._timer = asyncio.get_running_loop().call_later(_SOON_S, self._send)

    def data(self, data: bytes, ended: bool) -> None:
        """Answer; what follows is ignored."""
        self._send()

    def lost(self, code: int | None) -> None:
        """Answer nobody."""
        self._timer.cancel()

    def _send(self) -> None:
        self._timer.cancel()
        self._stream.send_headers(self._fields, ended=True)
