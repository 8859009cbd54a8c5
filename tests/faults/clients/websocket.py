"""WebSocket clients: a token for each connection, the close reason's cursor and delay, pings as signs of life."""

import json
import socket
from collections.abc import AsyncGenerator
from typing import Any, Final

import aiohttp
import msgspec

from tests.faults.clients.client import SILENCE_S, Address, Client, Ended, Opened
from tests.faults.values import Item

_SMALL: Final = 8192
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=SILENCE_S, sock_read=SILENCE_S)


def session(*, slow: bool) -> aiohttp.ClientSession:
    """A session; slow clients have a small receive buffer, so that the relay notices them."""
    connector = aiohttp.TCPConnector(force_close=True, socket_factory=_small_buffer if slow else None)
    return aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)


def _small_buffer(address: Any) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    return made


class WebSocketClient(Client):
    """A client that follows docs/websocket.md."""

    async def connection(self, address: Address, after: str | None) -> AsyncGenerator[Item | Opened, None]:
        async with session(slow=self.plan.behaviour == "slow") as http:
            async with http.post(f"{address.url}/api/auth/token", headers={"X-API-Key": self.world.key}) as answer:
                if answer.status != 200:
                    raise Ended(f"token {answer.status}", retry_ms=300)
                token = (await answer.json())["token"]
            opening = http.ws_connect(
                f"{address.url}/ws{self.path}", params=self.query(after), protocols=[token],
                autoping=False, autoclose=False, max_msg_size=0,
            )  # fmt: skip
            async with opening as ws:
                yield Opened()
                if (item := self.begin(ws._response.headers, after)) is not None:
                    yield item
                while True:
                    message = await ws.receive(timeout=SILENCE_S)
                    match message.type:
                        case aiohttp.WSMsgType.TEXT:
                            fields = msgspec.json.decode(message.data)
                            received = self.event(fields) if "event" in fields else self.entry(fields)
                            if received is not None:
                                yield received
                        case aiohttp.WSMsgType.PING:
                            await ws.pong(message.data)
                        case aiohttp.WSMsgType.CLOSE:
                            await ws.close()
                            raise _end(message)
                        case aiohttp.WSMsgType.PONG:
                            pass
                        case _:
                            raise ConnectionError("cut")


def _end(message: aiohttp.WSMessage) -> Ended:
    reason = json.loads(message.extra or "{}")
    return Ended(reason.get("reason", f"close {message.data}"), reason.get("cursor"), reason.get("retry_ms"))
