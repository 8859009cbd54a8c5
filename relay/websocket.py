"""Rounds over WebSocket: ``GET /ws/{game}``, ``/ws/type/{type}``, ``/ws``.

Owns the WebSocket side of the contract: subprotocol, frames, client messages, close codes. Rounds themselves are
written by the hub as prepared frames straight to the transport; aiohttp does the handshake, reads the client and
answers its pings.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from relay.encode import PING_FRAME, PONG, WebSocketDeflate, WebSocketText, frame
from relay.errors import BadMessage, Unavailable
from relay.link import CloseReason, Drain, Goodbye, Link

_CODES: Final = {
    CloseReason.DRAINING: 1012,
    CloseReason.MAX_AGE: 1012,
    CloseReason.SLOW: 4008,
    CloseReason.BAD_MESSAGE: 1008,
    CloseReason.COMPLETED: 1000,
    CloseReason.FAILED: 1011,
    CloseReason.UNRESPONSIVE: 1011,
}
_TRY_AGAIN_LATER: Final = 1013

_MESSAGES_PER_HEARTBEAT: Final = 100
"""Client messages and pings allowed between two heartbeats; more is no use and costs others."""
_UNANSWERED_PINGS: Final = 2
_CLOSE_REASON_BYTES: Final = 123


class ClientMessage(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say on an open link."""

    action: Literal["subscribe", "unsubscribe", "ping"]
    games: list[str] = []
    after: str | None = None


class WebSocketLink(Link):
    """An open WebSocket."""

    __slots__ = ("_closing", "_messages", "_unanswered", "ws")

    def __init__(
        self,
        ws: web.WebSocketResponse,
        transport: asyncio.WriteTransport,
        *,
        max_age_s: float,
        drain: Drain,
    ) -> None:
        super().__init__(transport, _form(int(ws.compress)), max_age_s=max_age_s, drain=drain)
        self.ws = ws
        self._unanswered = 0
        self._messages = 0
        self._closing: asyncio.Task[bool] | None = None

    def heartbeat(self) -> bool:
        self._messages = 0
        if self._unanswered >= _UNANSWERED_PINGS:
            return False
        if self.transport.get_write_buffer_size():
            return True  # a ping would queue behind what is on its way; TCP itself finds out whether anybody reads
        self._unanswered += 1
        self.transport.write(PING_FRAME)
        return True

    def tell(self, event: Mapping[str, object]) -> None:
        self.transport.write(frame(msgspec.json.encode(event)))

    def say_goodbye(self, goodbye: Goodbye) -> None:
        reason: dict[str, object] = {"reason": goodbye.reason, "retry_ms": goodbye.retry_ms}
        if goodbye.cursor is not None:
            reason["cursor"] = goodbye.cursor
        self._close(_CODES[goodbye.reason], reason)

    def _close(self, code: int, reason: Mapping[str, object]) -> None:
        """Send a close frame and wait, in a task of its own, for the client's."""
        # drain=False: a client that does not read must not keep this task; `Link.end` cuts the connection.
        closing = self.ws.close(code=code, message=close_reason(reason), drain=False)
        self._closing = asyncio.create_task(closing, name=f"close-{self.id}")

    async def serve(self, on_message: Callable[[ClientMessage], None]) -> None:
        """Read the client until the link is over, answering what it says.

        aiohttp itself closes with 1007 (not UTF-8), 1009 (too large) and 1002 (broken framing).
        """
        try:
            async for message in self.ws:
                self._read(message, on_message)
        except BadMessage as error:
            if self.ended is None:
                self.ended = Goodbye(CloseReason.BAD_MESSAGE, None, 0)
                self._close(_CODES[CloseReason.BAD_MESSAGE], {"reason": CloseReason.BAD_MESSAGE, "error": str(error)})
        if self._closing is not None:
            await asyncio.wait({self._closing})

    def _read(self, message: WSMessage, on_message: Callable[[ClientMessage], None]) -> None:
        if message.type is WSMsgType.PONG:
            self._unanswered = 0
            return
        self._messages += 1
        if self._messages > _MESSAGES_PER_HEARTBEAT:
            raise BadMessage(f"more than {_MESSAGES_PER_HEARTBEAT} messages between two heartbeats")
        if self.ended is not None:
            return
        if message.type is WSMsgType.PING:
            self.transport.write(frame(message.data, first_byte=PONG))
        elif message.type is WSMsgType.TEXT:
            on_message(_parse(message.data))
        elif message.type is WSMsgType.BINARY:
            raise BadMessage("binary message; send JSON as text")


def _parse(text: str) -> ClientMessage:
    try:
        return msgspec.json.decode(text, type=ClientMessage)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadMessage(str(error)) from error


@functools.cache  # one compressor per window size serves the process
def _form(window_bits: int) -> WebSocketText | WebSocketDeflate:
    """Pick the form that a handshake negotiated: 0 for no compression, else the bits of the server's window."""
    return WebSocketDeflate(window_bits) if window_bits else WebSocketText()


def close_reason(facts: Mapping[str, object]) -> bytes:
    """Render a close reason as JSON of at most 123 bytes (RFC 6455 section 5.5); a longer sentence is cut short."""
    text = msgspec.json.encode(facts)
    if len(text) <= _CLOSE_REASON_BYTES:
        return text
    sentence = str(facts["error"])
    while len(text) > _CLOSE_REASON_BYTES:
        sentence = sentence[: len(sentence) - max(1, (len(text) - _CLOSE_REASON_BYTES) // 4)]
        text = msgspec.json.encode({**facts, "error": f"{sentence}..."})
    return text


def response(*, protocol: str | None, message_bytes: int, linger_s: float) -> web.WebSocketResponse:
    """Prepare the handshake: `protocol` is the subprotocol to select, `message_bytes` the largest client message."""
    return web.WebSocketResponse(
        protocols=() if protocol is None else (protocol,),
        autoping=False,  # the wheel pings and counts the answers
        compress=True,
        max_msg_size=message_bytes + 1,  # aiohttp refuses a message of exactly this size
        timeout=linger_s,
    )


async def open_link(request: web.Request, response: web.WebSocketResponse, *, max_age_s: float) -> WebSocketLink:
    """Finish the handshake and return the link; raise ConnectionResetError when the client has left meanwhile."""
    await response.prepare(request)
    if request.transport is None:
        raise ConnectionResetError("the client left during the handshake")
    return WebSocketLink(response, request.transport, max_age_s=max_age_s, drain=request.writer.drain)


async def refuse_politely(request: web.Request, response: web.WebSocketResponse, refusal: Unavailable) -> None:
    """Finish the handshake only to say why not, and when to come back."""
    await response.prepare(request)
    code = _CODES[CloseReason.DRAINING] if refusal.reason == CloseReason.DRAINING else _TRY_AGAIN_LATER
    facts = {"reason": refusal.reason, "retry_ms": refusal.retry_ms}
    await response.close(code=code, message=close_reason(facts), drain=False)
