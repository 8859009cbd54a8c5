"""A client of the public API, as the command line needs one: follow rounds for ever, or read the past page by page.

A client like any other: it has a key, reconnects with the cursor of the last round it had, and believes what it is
told.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote

import aiohttp
import msgspec

from relay.commands.client.outage import Outage
from roundlog.backoff import Backoff

Via = Literal["ws", "sse", "grpc"]

_FATAL_STATUS: Final = (400, 401, 403, 404, 426)
_FATAL_CLOSE: Final = (1007, 1008, 1009, 4001)
_COMPLETED: Final = 1000
_WAITS_S: Final = (0.5, 10.0)

OPEN: Final = b'{"event":"open"}'
"""What readers yield, as if the relay had sent it, once a relay has taken them."""


class Refused(Exception):
    """The relay refused for good; ``str()`` is its own sentence."""


class Unreachable(ConnectionError):
    """Nothing that speaks the protocol is at the address; `question` asks whether there is a relay."""

    def __init__(self, address: str, question: str) -> None:
        super().__init__(f"nothing answers at {address}")
        self.question = question


class Broken(ConnectionError):
    """A stream ended that said more than that: where to go on, and when."""

    def __init__(self, sentence: str, *, cursor: str | None, wait_s: float | None) -> None:
        super().__init__(sentence)
        self.cursor, self.wait_s = cursor, wait_s


class Ended(Exception):
    """The end that was asked for has been reached."""


class _Message(msgspec.Struct):
    """What has to be known of a message: the cursor of a round, or the name of an event."""

    cursor: str | None = None
    event: str | None = None
    reason: str | None = None
    begin: str | None = msgspec.field(default=None, name="from")
    end: str | None = msgspec.field(default=None, name="to")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a relay is, and who asks."""

    url: str  # without a slash at the end
    key: str
    game: str | None  # None: all games

    def path(self, prefix: str) -> str:
        return f"{self.url}{prefix}" + ("" if self.game is None else f"/{quote(self.game, safe='')}")

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


async def follow(
    target: Target,
    *,
    via: Via,
    parameters: Mapping[str, str],
    say: Callable[[str], None],
    on_gap: Callable[[str], None] = lambda _reason: None,
) -> AsyncIterator[bytes]:
    """Yield each round's JSON, reconnecting for as long as it takes; ends where ``to`` says.

    Args:
        target: Whom to ask for what.
        via: The protocol.
        parameters: ``after``, ``from``, ``to``, ``last``, ``speed`` and filters, as in the URL.
        say: Told in one sentence when there is no relay, the connection is lost or rounds are gone.
        on_gap: Called with the reason when rounds are gone, before the next round is yielded.

    Raises:
        Refused: The relay refused the key, the game or a parameter.
    """
    read, course = _reader(via), _Course(target, dict(parameters), say, on_gap)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5)) as session:
        while True:
            try:
                async for data in read(session, target, course.given):
                    if course.takes(msgspec.json.decode(data, type=_Message)):
                        yield data
            except Ended:
                return
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                course.breaks(error)
            await asyncio.sleep(course.wait_s())


class _Course:
    """Where a client is on its way from connection to connection, and what its user has been told."""

    def __init__(
        self, target: Target, given: dict[str, str], say: Callable[[str], None], on_gap: Callable[[str], None]
    ) -> None:
        self.given = given
        """What to ask for next."""
        self._target = target
        self._say = say
        self._on_gap = on_gap
        self._outage = Outage(say)
        self._was_reached = False
        self._backoff = Backoff(*_WAITS_S)
        self._wait_s: float | None = None  # as the relay said

    def takes(self, message: _Message) -> bool:
        """Take what came; return whether it is a round."""
        self._was_reached = True
        self._outage.end()
        if message.event != "open":  # a relay that is full takes us, too, and sends us away
            self._backoff.reset()
        if message.event == "gap":
            self._say(f"rounds after {message.begin} up to {message.end} are gone ({message.reason})")
            self._on_gap(str(message.reason))
        if message.cursor is not None:
            self._go_on_after(message.cursor)
        return message.event is None and message.cursor is not None

    def breaks(self, error: Exception) -> None:
        """Say that the connection was lost, or is not to be had; and go on where it said."""
        if not self._was_reached and (question := _question(error, self._target)) is not None:
            self._outage.report(f"{question}; trying until there is")
        else:
            self._was_reached = True
            self._outage.report(f"connection lost ({str(error) or type(error).__name__}); reconnecting")
        if isinstance(error, Broken):
            self._wait_s = error.wait_s
            if error.cursor is not None:
                self._go_on_after(error.cursor)

    def wait_s(self) -> float:
        """Return how long to wait now: as the relay said, or longer each time."""
        wait_s = self._backoff.next_s()
        told_s, self._wait_s = self._wait_s, None
        return wait_s if told_s is None else told_s

    def _go_on_after(self, cursor: str) -> None:
        for beginning in ("from", "last"):
            self.given.pop(beginning, None)
        self.given["after"] = cursor


def _question(error: Exception, target: Target) -> str | None:
    """What to ask when a first connection fails; None when something did answer."""
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
        Refused: The relay refused, or cannot be reached.
    """
    url: str | None = target.path("/api/history")
    query: dict[str, str] | None = {**parameters, "limit": str(min(limit, 1000))}
    left = limit
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            while url is not None and left > 0:
                async with session.get(url, params=query, headers=target.headers) as response:
                    await _check(response)
                    for round_ in (await response.json())[:left]:
                        left -= 1
                        yield round_
                    following = response.links.get("next")
                    url, query = (None if following is None else str(following["url"])), None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Refused(f"{target.url} cannot be asked: {str(error) or type(error).__name__}") from error


async def _read_websocket(
    session: aiohttp.ClientSession, target: Target, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    # A fresh token each time: one lives for 30 s and only opens the door.
    async with session.post(f"{target.url}/api/auth/token", headers=target.headers) as response:
        await _check(response)
        token = (await response.json())["token"]
    try:
        link = session.ws_connect(target.path("/ws"), params=parameters, protocols=[token], heartbeat=30)
        async with link as ws:
            yield OPEN
            async for message in ws:
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield message.data.encode()
            if ws.close_code == _COMPLETED:
                raise Ended
            if ws.close_code in _FATAL_CLOSE:
                raise Refused(f"the relay closed the connection with code {ws.close_code}")
    except aiohttp.WSServerHandshakeError as error:
        if error.status not in _FATAL_STATUS:
            raise
    else:
        return
    # The library hides the body of a refused handshake; the same request over SSE is refused in words.
    async with session.get(target.path("/sse"), params=parameters, headers=target.headers) as response:
        await _check(response)
        raise Refused("the relay refused the WebSocket handshake")


async def _read_sse(
    session: aiohttp.ClientSession, target: Target, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    async with session.get(target.path("/sse"), params=parameters, headers=target.headers) as response:
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
