"""A client of the public API for the command line: follow rounds with reconnects, or read the history page by page.

Uses only what every client has: a key, and the cursor of the last round to reconnect with.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Literal

import aiohttp
import msgspec

from relay.commands.client.outage import Outage
from relay.commands.client.target import OPEN, Ended, Interrupted, Refused, Target, Unreachable
from roundlog.backoff import Backoff

Via = Literal["ws", "sse", "grpc"]

_FATAL_STATUS: Final = (400, 401, 403, 404, 426, 505)
_FATAL_CLOSE: Final = {
    1007: "the relay closed the connection with code 1007",
    1008: "the relay closed the connection with code 1008",
    1009: "the relay closed the connection with code 1009",
    4001: "revoked: the key was taken back, or no longer covers these games",
}
"""Codes after which a retry would not help."""
_COMPLETED: Final = 1000
_WAITS_S: Final = (0.5, 10.0)
_BEGINNINGS: Final = {"after", "from", "last", "to", "speed"}
_HELLO: Final = {"hello": "1"}
"""Asks for the cursor at which a stream begins: the client can resume there before its first round."""


class _Message(msgspec.Struct):
    """The fields of a message that the client reads: the cursor of a round, or the name and fields of an event."""

    cursor: str | None = None
    head: str | None = None
    event: str | None = None
    reason: str | None = None
    begin: str | None = msgspec.field(default=None, name="from")
    end: str | None = msgspec.field(default=None, name="to")


async def follow(
    target: Target,
    *,
    via: Via,
    parameters: Mapping[str, str],
    notify: Callable[[str], None],
    on_gap: Callable[[str], None] = lambda _reason: None,
) -> AsyncIterator[bytes]:
    """Yield each round's JSON; reconnect without limit; end where ``to`` says.

    Args:
        target: The relay, the key and the game.
        via: The protocol.
        parameters: ``after``, ``from``, ``to``, ``last``, ``speed`` and filters, as in the URL.
        notify: Called with one sentence when no relay answers, the connection is lost or rounds are gone.
        on_gap: Called with the reason when rounds are gone, before the next round is yielded.

    Raises:
        Refused: The relay refused the key, the game or a parameter.
    """
    read, reconnects = _reader(via), _Reconnects(target, dict(parameters), notify, on_gap)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5)) as session:
        while True:
            try:
                async for data in read(session, target, reconnects.parameters):
                    if reconnects.on_message(msgspec.json.decode(data, type=_Message)):
                        yield data
            except Ended:
                return
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                reconnects.on_failure(error)
            await asyncio.sleep(reconnects.next_wait_s())


class _Reconnects:
    """State that outlives a connection: the parameters of the next request, the delay before it, and the outage."""

    def __init__(
        self, target: Target, parameters: dict[str, str], notify: Callable[[str], None], on_gap: Callable[[str], None]
    ) -> None:
        self.parameters = parameters
        """The parameters of the next request."""
        self._target = target
        self._notify = notify
        self._on_gap = on_gap
        self._outage = Outage(notify)
        self._was_reached = False
        self._backoff = Backoff(*_WAITS_S)
        self._relays_wait_s: float | None = None  # the delay that the relay gave

    def on_message(self, message: _Message) -> bool:
        """Record a message; return whether it is a round."""
        self._was_reached = True
        self._outage.end()
        if message.event != "open":  # a full relay also accepts the stream, and then ends it
            self._backoff.reset()
        if message.event == "gap":
            self._notify(f"rounds after {message.begin} up to {message.end} are gone ({message.reason})")
            self._on_gap(str(message.reason))
        if message.event == "hello" and not _BEGINNINGS & self.parameters.keys():
            self._resume_after(str(message.head))  # a live stream, which begins there
        if message.cursor is not None:
            self._resume_after(message.cursor)
        return message.event is None and message.cursor is not None

    def on_failure(self, error: Exception) -> None:
        """Report a lost or failed connection, and take the cursor and delay that the relay gave."""
        if not self._was_reached and (question := _question(error, self._target)) is not None:
            self._outage.report(f"{question}; retrying")
        else:
            self._was_reached = True
            self._outage.report(f"connection lost ({str(error) or type(error).__name__}); reconnecting")
        if isinstance(error, Interrupted):
            self._relays_wait_s = error.wait_s
            if error.cursor is not None:
                self._resume_after(error.cursor)

    def next_wait_s(self) -> float:
        """Return the delay before the next attempt: the relay's, else one of exponential backoff."""
        backoff_s = self._backoff.next_s()
        relays_s, self._relays_wait_s = self._relays_wait_s, None
        return backoff_s if relays_s is None else relays_s

    def _resume_after(self, cursor: str) -> None:
        for beginning in ("from", "last"):
            self.parameters.pop(beginning, None)
        self.parameters["after"] = cursor


def _question(error: Exception, target: Target) -> str | None:
    """Return what to ask the user when a first connection fails; None when a server answered."""
    if isinstance(error, Unreachable):
        return error.question
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
        return f"is a relay running at {target.url}? ({error})"
    return None


Reader = Callable[[aiohttp.ClientSession, Target, Mapping[str, str]], AsyncIterator[bytes]]


def _reader(via: Via) -> Reader:
    if via == "grpc":
        from relay.commands.client.grpc import read_grpc

        return read_grpc
    return _read_websocket if via == "ws" else _read_sse


async def history(target: Target, parameters: Mapping[str, str], *, limit: int) -> AsyncIterator[dict[str, Any]]:
    """Yield up to `limit` rounds of the past, newest first, page by page.

    Raises:
        Refused: The relay refused the request, or cannot be reached.
    """
    url: str | None = target.path("/api/history")
    query: dict[str, str] | None = {**parameters, "limit": str(min(limit, 1000))}
    remaining = limit
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            while url is not None and remaining > 0:
                async with session.get(url, params=query, headers=target.headers) as response:
                    await _check(response)
                    for round_ in (await response.json())[:remaining]:
                        remaining -= 1
                        yield round_
                    following = response.links.get("next")
                    url, query = (None if following is None else str(following["url"])), None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Refused(f"{target.url} cannot be reached: {str(error) or type(error).__name__}") from error


async def _read_websocket(
    session: aiohttp.ClientSession, target: Target, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    # A new token for each connection: a token is valid for 30 s.
    async with session.post(f"{target.url}/api/auth/token", headers=target.headers) as response:
        await _check(response)
        token = (await response.json())["token"]
    try:
        link = session.ws_connect(target.path("/ws"), params={**_HELLO, **parameters}, protocols=[token], heartbeat=30)
        async with link as ws:
            yield OPEN
            async for message in ws:
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield message.data.encode()
            if ws.close_code == _COMPLETED:
                raise Ended
            if ws.close_code in _FATAL_CLOSE:
                raise Refused(_FATAL_CLOSE[ws.close_code])
    except aiohttp.WSServerHandshakeError as error:
        if error.status not in _FATAL_STATUS:
            raise
    else:
        return
    # aiohttp hides the body of a refused handshake; the same request over SSE gets the relay's sentence.
    async with session.get(target.path("/sse"), params=parameters, headers=target.headers) as response:
        await _check(response)
        raise Refused("the relay refused the WebSocket handshake")


async def _read_sse(
    session: aiohttp.ClientSession, target: Target, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    async with session.get(target.path("/sse"), params={**_HELLO, **parameters}, headers=target.headers) as response:
        await _check(response)
        yield OPEN
        event = b""
        async for line in response.content:
            if line.startswith(b"event: "):
                event = line[7:].strip()
            elif line.startswith(b"data: "):
                if event == b"end":
                    raise Ended
                event = b""
                yield line[6:].rstrip(b"\n")


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status in _FATAL_STATUS:
        try:
            sentence = (await response.json())["error"]
        except (ValueError, KeyError, aiohttp.ContentTypeError):
            sentence = f"{response.url.origin()} answered {response.status}"
        raise Refused(sentence)
    response.raise_for_status()
