"""Rounds over WebSocket: ``GET /ws/{game}``, ``/ws/type/{type}``, ``/ws``.

Owns the WebSocket side of the contract: client messages, pings, close codes. The hub writes rounds as prepared frames
straight to the transport. Does not know the handshake (`handshake`), nor how frames are read (`frames`).
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Final, get_args

import msgspec
from websockets.frames import Opcode

from auth.redact import redact
from relay.errors import BadMessage
from relay.http.websocket.frames import FrameError, FrameReader, Message, TooManyFrames
from relay.links.messages import Action, ClientMessage
from relay.links.stream_link import StreamLink
from relay.live.compression.websocket_window import WebSocketWindow
from relay.live.encode import CLOSE, PING_FRAME, PONG, WebSocketDeflate, WebSocketText, frame
from relay.live.link import CloseReason, Disconnect, LinkEnder

CLOSE_CODES: Final = {
    CloseReason.DRAINING: 1012,
    CloseReason.MAX_AGE: 1012,
    CloseReason.CAPACITY: 1013,
    CloseReason.LOG_UNAVAILABLE: 1013,
    CloseReason.REVOKED: 4001,
    CloseReason.RATE_LIMITED: 1013,
    CloseReason.SLOW: 4008,
    CloseReason.BAD_MESSAGE: 1008,
    CloseReason.COMPLETED: 1000,
    CloseReason.CLIENT: 1000,
    CloseReason.FAILED: 1011,
    CloseReason.UNRESPONSIVE: 1011,
}
"""The close code of each end. Frames that break the protocol have codes of their own, in `frames`."""

_BAD_MESSAGE: Final = CLOSE_CODES[CloseReason.BAD_MESSAGE]
_UNANSWERED_PINGS: Final = 2
_CLOSE_REASON_BYTES: Final = 123


_ACTIONS: Final = get_args(Action)

_decode: Final = msgspec.json.Decoder(ClientMessage).decode


class WebSocketLink(StreamLink):
    """An open WebSocket."""

    __slots__ = ("_close_frame", "_fault", "_frames", "_frames_allowed", "_unanswered", "on_message")

    def __init__(
        self,
        transport: asyncio.Transport,
        ender: LinkEnder,
        *,
        window_bits: int,
        keeps_window: bool = False,
        message_bytes: int,
        frames_per_heartbeat: int,
        max_age_s: float,
    ) -> None:
        """Wrap a connection whose handshake is answered.

        Args:
            transport: The connection.
            ender: Ends the link.
            window_bits: Window size of the negotiated compression; 0: none.
            keeps_window: Whether the client keeps that window between messages.
            message_bytes: The largest message that the client may send.
            frames_per_heartbeat: How many frames of any kind the client may send between two heartbeats.
            max_age_s: How old the link may get, in seconds.
        """
        super().__init__(transport, _form(window_bits, keeps_window), ender, max_age_s=max_age_s)
        self.on_message: Callable[[ClientMessage], None] | None = None
        """Does what a message asks; raises `BadMessage` when that is not allowed."""
        self._frames = FrameReader(max_size=message_bytes, deflate=bool(window_bits))
        self._fault: tuple[int, str] | None = None  # code and sentence of the client's error
        self._close_frame = b""  # payload of the client's close frame
        self._frames.frames = self._frames_allowed = frames_per_heartbeat
        self._unanswered = 0

    def connection_lost(  # type: ignore[override]  # called by `Intake`
        self, exc: Exception | None
    ) -> Callable[[], None] | None:
        self.on_message = None  # its session refers to this object
        return super().connection_lost(exc)

    def heartbeat(self) -> bool:
        self._frames.frames = self._frames_allowed
        if self._unanswered >= _UNANSWERED_PINGS:
            return False
        if self.transport.get_write_buffer_size():
            return True  # a ping would wait behind unsent bytes; TCP_USER_TIMEOUT finds a dead peer
        self._unanswered += 1
        self.transport.write(PING_FRAME)
        return True

    def send_event(self, event: Mapping[str, object]) -> None:
        self.transport.write(frame(msgspec.json.encode(event)))

    def data_received(self, data: bytes) -> bool:
        """Handle one message, or as many control frames as came before it; return whether bytes remain to be parsed.

        One, since some messages take a millisecond: what others wait for comes in between.
        """
        if self.is_deaf:
            return self.ignore(data)
        try:
            for message in self._frames.feed(data):
                self._take(message)
                if self.transport.is_closing():
                    return False
                if message.opcode is Opcode.TEXT:
                    return self._frames.unread > 0
        except FrameError as error:
            self._refuse(error.code, error.sentence)
        except BadMessage as error:
            self._refuse(_BAD_MESSAGE, str(error))
            return self._frames.unread > 0  # the client's close frame may be among it
        except TooManyFrames:
            self._refuse(_BAD_MESSAGE, f"more than {self._frames_allowed} frames between two heartbeats")
            self.is_deaf = True
        return False

    def write_disconnect(self, disconnect: Disconnect) -> None:
        reason, code = disconnect.reason, CLOSE_CODES[disconnect.reason]
        facts: dict[str, object] = {"reason": reason, "retry_ms": disconnect.retry_ms, "cursor": disconnect.cursor}
        if reason is CloseReason.CLIENT:  # RFC 6455 section 5.5.1: a close frame is answered with its own code
            self.transport.write(frame(self._close_frame[:2], first_byte=CLOSE))
            self.transport.close()
            return
        if reason is CloseReason.REVOKED:  # its client is not to come back
            facts = {"reason": reason}
        if self._fault is not None:
            code, sentence = self._fault
            facts = {"reason": reason, "error": sentence}
        self.transport.write(frame(code.to_bytes(2) + close_reason(facts), first_byte=CLOSE))

    def _take(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            if self.ended is None:
                self._close_frame = message.data
                self.end(CloseReason.CLIENT)
            else:
                self.transport.close()  # close frames were sent both ways
            return
        if self.ended is not None:
            return
        if message.opcode is Opcode.PONG:
            if self._unanswered:
                self._unanswered = 0
                self._frames.frames += 1  # the answer to a ping costs the client nothing
        elif message.opcode is Opcode.PING:
            self.transport.write(frame(message.data, first_byte=PONG))
        elif message.opcode is Opcode.BINARY:
            raise BadMessage("binary message; send JSON as text")
        elif self.on_message is not None:
            self.on_message(read_message(message.data))

    def _refuse(self, code: int, sentence: str) -> None:
        if self.ended is not None:
            self.is_deaf = True  # it has its close frame, and sends what is not allowed
            return
        self._fault = (code, redact(sentence))
        self.end(CloseReason.BAD_MESSAGE)


def read_message(text: bytes) -> ClientMessage:
    """Read a client's message; raise `BadMessage` when it is malformed."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadMessage(_fault(text)) from error


def _fault(text: bytes) -> str:
    """Return what is wrong with a message that was not decoded, and what is allowed; fits into a close reason."""
    try:
        message = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return 'not JSON; send an object such as {"action":"ping"}'
    if not isinstance(message, dict):
        return "a message must be a JSON object with an action"
    names = ClientMessage.__struct_fields__
    if unknown := [name for name in message if name not in names]:
        return f"unknown member {unknown[0][:20]!r}; allowed: {', '.join(names)}"
    if message.get("action") not in _ACTIONS:
        return "action must be subscribe, unsubscribe or ping"
    games = message.get("games", [])
    if not isinstance(games, list) or not all(isinstance(game, str) for game in games):
        return "games must be a list of slugs"
    if not isinstance(message.get("corrections"), bool | None):
        return "corrections must be true or false"
    return "after must be a cursor"


@functools.cache  # one form of each kind serves the process, with its compressor
def _form(window_bits: int, keeps_window: bool) -> WebSocketText | WebSocketDeflate | WebSocketWindow:
    if not window_bits:
        return WebSocketText()
    return WebSocketWindow(window_bits) if keeps_window else WebSocketDeflate(window_bits)


def close_reason(facts: Mapping[str, object]) -> bytes:
    """Render a close reason as JSON of at most 123 bytes (RFC 6455 section 5.5); a longer sentence is truncated."""
    text = msgspec.json.encode({name: value for name, value in facts.items() if value is not None})
    if len(text) <= _CLOSE_REASON_BYTES:
        return text
    sentence = str(facts["error"])
    while len(text) > _CLOSE_REASON_BYTES:
        sentence = sentence[: len(sentence) - max(1, (len(text) - _CLOSE_REASON_BYTES) // 4)]
        text = msgspec.json.encode({**facts, "error": f"{sentence}..."})
    return text
