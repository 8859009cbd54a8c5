"""``stream-relay tail``: print a game's rounds as they come, over the public API, and never miss one.

A client like any other: it reconnects with the cursor of the last round it printed.
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from typing import Final, Literal
from urllib.parse import quote

import aiohttp
import msgspec

Via = Literal["ws", "sse"]

_FATAL_STATUS: Final = (400, 401, 403, 404, 426)
_FATAL_CLOSE: Final = (1007, 1008, 1009, 4001)
_LONGEST_WAIT_S: Final = 10.0


class TailError(Exception):
    """The relay refused for good; ``str()`` is its own sentence."""


async def tail(url: str, key: str, game: str | None, *, via: Via, count: int | None = None) -> None:
    """Print one JSON line per round until cancelled, or until `count` rounds were printed.

    Raises:
        TailError: The relay refused the key, the game or the request.
    """
    rounds_left = count
    async for line in follow(url, key, game, via=via):
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        if rounds_left is not None:
            rounds_left -= 1
            if rounds_left == 0:
                return


async def follow(url: str, key: str, game: str | None, *, via: Via) -> AsyncIterator[bytes]:
    """Yield each round's JSON, reconnecting for ever with the last cursor."""
    read = _read_websocket if via == "ws" else _read_sse
    cursor: str | None = None
    failures = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5)) as session:
        while True:
            try:
                async for data in read(session, url.rstrip("/"), key, game, cursor):
                    failures = 0
                    round_ = msgspec.json.decode(data, type=_Place)
                    if round_.cursor is not None:  # anything else is an event about the stream
                        cursor = round_.cursor
                        yield data
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                print(f"connection lost ({str(error) or type(error).__name__}); reconnecting", file=sys.stderr)
            failures += 1
            # Full jitter: many clients that lost one relay must not come back together.
            await asyncio.sleep(random.uniform(0, min(_LONGEST_WAIT_S, 0.25 * 2**failures)))  # noqa: S311


def _path(game: str | None) -> str:
    return "" if game is None else f"/{quote(game, safe='')}"


class _Place(msgspec.Struct):
    cursor: str | None = None


async def _read_websocket(
    session: aiohttp.ClientSession, url: str, key: str, game: str | None, cursor: str | None
) -> AsyncIterator[bytes]:
    # A fresh token each time: one lives for 30 s and only opens the door.
    async with session.post(f"{url}/api/auth/token", headers={"X-API-Key": key}) as response:
        await _check(response)
        token = (await response.json())["token"]
    params = {} if cursor is None else {"after": cursor}
    try:
        link = session.ws_connect(f"{url}/ws{_path(game)}", params=params, protocols=[token], heartbeat=30)
        async with link as ws:
            async for message in ws:
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield message.data.encode()
            if ws.close_code in _FATAL_CLOSE:
                raise TailError(f"the relay closed the connection with code {ws.close_code}")
    except aiohttp.WSServerHandshakeError as error:
        if error.status in _FATAL_STATUS:
            raise TailError(
                f"the relay refused the WebSocket for {game or 'all games'} with status {error.status}"
            ) from error
        raise


async def _read_sse(
    session: aiohttp.ClientSession, url: str, key: str, game: str | None, cursor: str | None
) -> AsyncIterator[bytes]:
    headers = {"X-API-Key": key} | ({} if cursor is None else {"Last-Event-ID": cursor})
    async with session.get(f"{url}/sse{_path(game)}", headers=headers) as response:
        await _check(response)
        async for line in response.content:
            if line.startswith(b"data: "):
                yield line[6:].rstrip(b"\n")


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status in _FATAL_STATUS:
        try:
            sentence = (await response.json())["error"]
        except (ValueError, KeyError, aiohttp.ContentTypeError):
            sentence = f"the relay answered {response.status}"
        raise TailError(sentence)
    response.raise_for_status()
