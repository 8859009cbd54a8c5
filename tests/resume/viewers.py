"""Clients that record everything they get, over WebSocket and over Server-Sent Events, in one form.

Owns no expectations. Every wait ends: with what was waited for, with the end of the stream, or at a deadline.
"""

import asyncio
import json
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final

import aiohttp

from auth.key_secret import DEMO_KEY

_WAIT_S: Final = 30.0

Message = dict[str, Any]


class Viewer(ABC):
    """An open stream. `seen` is everything that came: rounds, and events, which have the member ``event``."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.ended: Message | None = None
        """``code`` and ``reason`` of the close frame, or nothing."""

    @property
    def rounds(self) -> list[Message]:
        return [message for message in self.seen if "event" not in message]

    @property
    def ids(self) -> list[int]:
        return [round_["round_id"] for round_ in self.rounds]

    @property
    def sequences(self) -> list[int]:
        return [sequence_of(round_["cursor"]) for round_ in self.rounds]

    @property
    def events(self) -> list[Message]:
        return [message for message in self.seen if "event" in message]

    @property
    def gaps(self) -> list[Message]:
        return [event for event in self.events if event["event"] == "gap"]

    async def until(self, met: Callable[[Message], bool]) -> Message:
        """Read until a message meets a condition; return it.

        Raises:
            AssertionError: The stream ended before, or 30 s passed.
        """
        try:
            async with asyncio.timeout(_WAIT_S):
                while (message := await self.receive()) is not None:
                    if met(message):
                        return message
        except TimeoutError:
            raise AssertionError(f"not within {_WAIT_S:g} s; the last that came: {self.seen[-5:]}") from None
        raise AssertionError(f"ended with {self.ended}; the last that came: {self.seen[-5:]}")

    async def until_rounds(self, count: int) -> None:
        """Read until `count` rounds have come."""
        if len(self.rounds) < count:
            await self.until(lambda message: "event" not in message and len(self.rounds) >= count)

    async def until_round(self, round_id: int, *, game: str | None = None) -> None:
        await self.until(lambda message: message.get("round_id") == round_id and game in (None, message["game_slug"]))

    async def to_the_end(self) -> None:
        """Read until the relay ends the stream."""
        async with asyncio.timeout(_WAIT_S):
            while await self.receive() is not None:
                pass

    async def receive(self) -> Message | None:
        """Return the next message; None when the stream is over."""
        message = await self._receive()
        if message is not None:
            self.seen.append(message)
        return message

    @abstractmethod
    async def _receive(self) -> Message | None: ...


class WebSocketViewer(Viewer):
    """A link of its own."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.ws = ws

    async def say(self, **message: object) -> None:
        await self.ws.send_json(message)

    async def _receive(self) -> Message | None:
        try:
            message = await self.ws.receive()
        except aiohttp.ClientConnectionResetError:  # it answers a ping of a relay that has stopped since
            return await self._receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            decoded: Message = json.loads(message.data)
            return decoded
        if message.type is aiohttp.WSMsgType.CLOSE:
            self.ended = {"code": message.data, **json.loads(message.extra or "{}")}
            with suppress(aiohttp.ClientConnectionResetError):  # the relay may have cut the connection by now
                await self.ws.close()
        return None


class SseViewer(Viewer):
    """An event stream, read as the HTML standard says (section 9.2.6), field by field."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__()
        self.response = response
        self.last_event_id = ""
        self.retry_ms: int | None = None

    async def _receive(self) -> Message | None:
        name, data = "message", []
        while line := await self._line():
            field, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                self.last_event_id = value
            elif field == "retry":
                self.retry_ms = int(value)
            elif line == "\n" and data:
                message: Message = json.loads("\n".join(data))
                assert name == message.get("event", "message")
                return message
        return None

    async def _line(self) -> str:
        try:
            return (await self.response.content.readline()).decode()
        except aiohttp.ClientError:
            return ""


@asynccontextmanager
async def watch(
    url: str,
    path: str,
    *,
    key: str = DEMO_KEY,
    protocol: str = "ws",
    last_event_id: str | None = None,
    receive_buffer: int | None = None,
    **query: object,
) -> AsyncIterator[Any]:
    """Open a stream: ``async with watch(url, "crash", after=cursor) as viewer``. `protocol` is ``ws`` or ``sse``.

    A parameter that is a Python keyword is given with an underscore behind it: ``from_``. The empty path is all games,
    or those of the parameter ``games``. `receive_buffer` is what the kernel takes for the client, in bytes.
    """
    path = f"/{path}" if path else ""
    parameters = {name.rstrip("_"): str(value) for name, value in query.items()}
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(socket_factory=_socket_factory(receive_buffer))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        )
        if protocol == "ws":
            token = await token_of(session, url, key)
            opened = session.ws_connect(
                f"{url}/ws{path}", params=parameters, protocols=[token], max_msg_size=0, autoclose=False
            )
            viewer: Viewer = WebSocketViewer(await stack.enter_async_context(opened))
        else:
            headers = {"X-API-Key": key} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            asked = session.get(f"{url}/sse{path}", params=parameters, headers=headers)
            viewer = SseViewer(await stack.enter_async_context(asked))
        yield viewer


def _socket_factory(receive_buffer: int | None) -> Callable[[Any], socket.socket]:
    def make(address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        if receive_buffer is not None:  # before connect: it sets the window that the relay is offered
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        return made

    return make


async def token_of(session: aiohttp.ClientSession, url: str, key: str) -> str:
    async with session.post(f"{url}/api/auth/token", headers={"X-API-Key": key}) as answer:
        answer.raise_for_status()
        return str((await answer.json())["token"])


def sequence_of(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])
