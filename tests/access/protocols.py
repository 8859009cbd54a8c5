"""Every way to present a credential and to ask for games, and what an answer means there.

Owns how a cell of the table becomes a request, and how its answer is read. Does not know which answer is right.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import aiohttp
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc import StatusCode, aio

from rounds import datastream_pb2 as pb
from tests.access.access_rules import Refused, Slot, Target
from tests.access.credentials import SIGNER
from tests.rpc.caller import METHODS, Caller
from tests.rpc.envelopes import elements, envelope

_UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
_BY_STATUS: Final = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
}
"""docs/grpc.md, "How a call ends"."""


_CODES: Final = {code.value[0]: code for code in StatusCode}
_PAST: Final = {"last": "1", "to": "2026-01-18T23:00:00Z"}
"""The newest round of each game, then the end: so a stream is read as a whole."""


class Answer(NamedTuple):
    """What a client got."""

    outcome: Any
    """OK, or how it was refused, in the words of the protocol."""
    games: frozenset[str] | None = None
    """The games of the rounds or rows that came; None: the answer has none."""
    text: bytes = b""
    """All of it that is not for its owner alone: the search for secrets looks at it."""


OK: Final = "served"


@dataclass(slots=True)
class Client:
    """A client of one relay."""

    url: str
    grpc: Caller
    http: aiohttp.ClientSession


@dataclass(frozen=True, slots=True)
class Way:
    """One protocol, and one place of it where a credential can be."""

    name: str
    slot: Slot
    ask: Callable[[Client, tuple[str, ...], Target, str | None], Awaitable[Answer]] = field(repr=False)
    refused: Callable[[Refused], Any] = tuple
    """How it says that a request is refused."""
    takes: tuple[str, ...] = ("game", "type", "all")
    """Of what it gives rounds."""
    lists: bool = False
    """Whether it lists what a credential covers, and asks for nothing."""
    web: bool = True
    """Whether browsers can use it."""


def _headers(shown: tuple[str, ...], origin: str | None) -> dict[str, str]:
    """Return headers with the first credential where keys are, and another one in another place."""
    found = {} if origin is None else {"Origin": origin}
    if shown:
        found["X-API-Key"] = shown[0]
    if len(shown) > 1:
        found["Authorization"] = f"Bearer {shown[1]}"
    return found


def _beside_token(shown: tuple[str, ...], origin: str | None) -> dict[str, str]:
    """Return headers for a request whose first credential is where tokens are."""
    return _headers(shown[1:], origin)


def _path(target: Target) -> str:
    return {"game": f"/{target.name}", "type": f"/type/{target.name}", "all": ""}[target.what]


async def _refused(response: aiohttp.ClientResponse) -> Answer:
    """Read the body of an error over HTTP."""
    text = await response.read()
    body = json.loads(text)
    assert body["success"] is False
    assert isinstance(body["error"], str)
    return Answer((response.status, body["code"]), text=_head(response) + text)


def _head(response: aiohttp.ClientResponse) -> bytes:
    """Return the headers of an answer, without those that differ each time."""
    return "\n".join(
        f"{name}: {value}"
        for name, value in response.headers.items()
        if not name.lower().startswith(("date", "head-cursor", "x-ratelimit"))
    ).encode()


def _slugs(rows: Iterable[Mapping[str, Any]], member: str = "game_slug") -> frozenset[str]:
    """Return the games of rows; events, such as the first one of a replay, have none."""
    return frozenset(row[member] for row in rows if "event" not in row)


def _rest(path: Callable[[Target], str], games: Callable[[Any], frozenset[str]]) -> Any:
    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        async with client.http.get(client.url + path(target), headers=_headers(shown, origin)) as response:
            if response.status != 200:
                return await _refused(response)
            text = await response.read()
            return Answer(OK, games(json.loads(text)), _head(response) + text)

    return ask


async def _ask_token(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
    body = {"game": {"games": [target.name]}, "type": {"types": [target.name]}, "all": {}}[target.what]
    headers = _headers(shown, origin)
    async with client.http.post(f"{client.url}/api/auth/token", headers=headers, json=body) as response:
        if response.status != 200:
            return await _refused(response)
        answer = await response.json()
        assert all(isinstance(value, str) for value in answer.values())
        # Of a token for all that its key covers, nothing is listed that could be compared.
        games = None if target.what == "all" else SIGNER.verify(answer["token"]).games
        return Answer(OK, games, _head(response))


def _sse(parameter: str | None) -> Any:
    """Present the credential in a header, or in a parameter of the URL."""

    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        query, headers = dict(_PAST), _headers(shown, origin)
        if parameter is not None:
            headers = _beside_token(shown, origin)
            query |= {parameter: shown[0]} if shown else {}
        async with client.http.get(f"{client.url}/sse{_path(target)}", params=query, headers=headers) as response:
            if response.status != 200:
                return await _refused(response)
            text = await response.read()
            rows = [json.loads(line[6:]) for line in text.splitlines() if line.startswith(b"data: ")]
            return Answer(OK, _slugs(rows), _head(response) + text)

    return ask


def _websocket(place: str) -> Any:
    """Present the credential in a header, as a subprotocol, or in the URL."""

    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        query, headers = dict(_PAST), _beside_token(shown, origin)
        if place == "header":
            headers = _headers(shown, origin)
        elif shown and place == "subprotocol":
            headers["Sec-WebSocket-Protocol"] = shown[0]
        elif shown:
            query["token"] = shown[0]
        url = f"{client.url}/ws{_path(target)}"
        async with client.http.get(url, params=query, headers=headers | _UPGRADE) as response:
            if response.status != 101:
                return await _refused(response)
            response.close()
        offered = headers.pop("Sec-WebSocket-Protocol", None)
        async with client.http.ws_connect(
            url, params=query, headers=headers, protocols=() if offered is None else (offered,)
        ) as link:
            assert link.protocol == offered
            texts = [str(message.data) async for message in link]
            return Answer(OK, _slugs([json.loads(text) for text in texts]), "\n".join(texts).encode())

    return ask


def _request_of(target: Target) -> Message:
    start = pb.Start(last=1)
    start.to_time.FromJsonString(_PAST["to"])
    if target.what == "game":
        return pb.StreamByGameRequest(game_slug=target.name, start=start)
    if target.what == "type":
        return pb.StreamByTypeRequest(game_type=target.name, start=start)
    return pb.StreamAllRequest(start=start)


def _page_of(target: Target) -> pb.GetHistoryRequest:
    if target.what == "game":
        return pb.GetHistoryRequest(game_slug=target.name)
    return pb.GetHistoryRequest(game_type=target.name)  # empty: all


def _replay_of(target: Target) -> pb.ReplayRequest:
    return pb.ReplayRequest(game_slugs=[target.name] if target.what == "game" else [])


def _games_of(messages: Iterable[Any]) -> frozenset[str]:
    """Return the games of messages: rounds, batches or pages of them, or a list of games."""
    found = set[str]()
    for message in messages:
        if isinstance(message, pb.Round):
            found.add(message.game_slug)
        elif isinstance(message, pb.ListGamesResponse):
            found.update(game.slug for game in message.games)
        else:
            found.update(round_.game_slug for round_ in message.rounds)
    return frozenset(found)


def _grpc(request_of: Callable[[Target], Message]) -> Any:
    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        request = request_of(target)
        client.grpc.metadata = [(name.lower(), value) for name, value in _headers(shown, origin).items()]
        try:
            if METHODS[type(request)].startswith(("Get", "List")):
                found = [await client.grpc.ask(request)]
            else:
                found = [message async for message in client.grpc.call(request)]
            return Answer(OK, _games_of(found), str(found).encode())
        except aio.AioRpcError as error:
            text = f"{error.details()}\n{error.trailing_metadata()}\n{error.initial_metadata()}"
            return Answer(error.code(), text=text.encode())

    return ask


def _as_json(request: Message) -> dict[str, Any]:
    return MessageToDict(request)


@asynccontextmanager
async def _proxied(
    client: Client, request: Message, media_type: str, body: bytes, shown: tuple[str, ...], origin: str | None
) -> AsyncIterator[aiohttp.ClientResponse]:
    url = f"{client.url}/api/grpc/datastream.DataStream/{METHODS[type(request)]}"
    headers = {"Content-Type": media_type, **_headers(shown, origin)}
    async with client.http.post(url, headers=headers, data=body) as response:
        yield response


def _connect_error(error: Mapping[str, Any], text: bytes) -> Answer:
    return Answer((error["code"], error["details"][0]["debug"]["reason"]), text=text)


def _connect_unary(request_of: Callable[[Target], Message]) -> Any:
    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        request = request_of(target)
        body = json.dumps(_as_json(request)).encode()
        async with _proxied(client, request, "application/json", body, shown, origin) as response:
            text = await response.read()
            found = json.loads(text)
            if response.status != 200:
                return _connect_error(found, _head(response) + text)
            rows, member = (found["games"], "slug") if "games" in found else (found.get("rounds", [found]), "game_slug")
            return Answer(OK, _slugs(rows, member), text)

    return ask


def _connect_stream(request_of: Callable[[Target], Message]) -> Any:
    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        request = request_of(target)
        body = envelope(json.dumps(_as_json(request)).encode())
        async with _proxied(client, request, "application/connect+json", body, shown, origin) as response:
            text = await response.read()
        *messages, (flags, end) = elements(text)
        assert flags == 2
        if (error := json.loads(end).get("error")) is not None:
            assert not messages
            return _connect_error(error, text)
        found = [json.loads(message) for _, message in messages]
        return Answer(OK, _slugs([row for one in found for row in one.get("rounds", [one])]), text)

    return ask


def _grpc_web(request_of: Callable[[Target], Message], answer: type[Message]) -> Any:
    async def ask(client: Client, shown: tuple[str, ...], target: Target, origin: str | None) -> Answer:
        request, kind = request_of(target), "application/grpc-web+proto"
        async with _proxied(client, request, kind, envelope(request), shown, origin) as response:
            text = await response.read()
        *messages, (flags, end) = elements(text)
        assert flags == 0x80
        status = dict(line.split(":", 1) for line in end.decode().strip().split("\r\n"))["grpc-status"].strip()
        if status != "0":
            assert not messages
            return Answer(_CODES[int(status)], text=text)
        return Answer(OK, _games_of(answer.FromString(message) for _, message in messages), text)

    return ask


def _by_code(refused: Refused) -> StatusCode:
    return _BY_STATUS[refused.status]


def _by_name(refused: Refused) -> tuple[str, str]:
    return _BY_STATUS[refused.status].name.lower(), refused.code


def _latest_of(target: Target) -> pb.GetLatestRequest:
    return pb.GetLatestRequest(game_slug=target.name)


def _listing(_: Target) -> pb.ListGamesRequest:
    return pb.ListGamesRequest()


_BARE: Final = ("game", "all")
REST: Final = (
    Way(
        "latest", "key", _rest(lambda target: f"/api/latest/{target.name}", lambda row: _slugs([row])), takes=("game",)
    ),
    Way("history", "key", _rest(lambda target: f"/api/history{_path(target)}", _slugs)),
    Way("games", "key", _rest(lambda _: "/api/games", lambda rows: _slugs(rows, "slug")), lists=True),
    Way("token endpoint", "key", _ask_token),
)
EVENT_STREAMS: Final = (
    Way("header", "key", _sse(None)),
    Way("?api_key", "key", _sse("api_key")),
    Way("?token", "token", _sse("token")),
)
WEBSOCKETS: Final = (
    Way("header", "key", _websocket("header")),
    Way("subprotocol", "token", _websocket("subprotocol")),
    Way("?token", "token", _websocket("query")),
)
GRPC: Final = (
    Way("streams", "key", _grpc(_request_of), _by_code, web=False),
    Way("GetHistory", "key", _grpc(_page_of), _by_code, web=False),
    Way("GetLatest", "key", _grpc(_latest_of), _by_code, takes=("game",), web=False),
    Way("Replay", "key", _grpc(_replay_of), _by_code, takes=_BARE, web=False),
    Way("ListGames", "key", _grpc(_listing), _by_code, lists=True, web=False),
)
CONNECT: Final = (
    Way("Connect streams", "key", _connect_stream(_request_of), _by_name),
    Way("Connect GetHistory", "key", _connect_unary(_page_of), _by_name),
    Way("Connect GetLatest", "key", _connect_unary(_latest_of), _by_name, takes=("game",)),
    Way("Connect Replay", "key", _connect_stream(_replay_of), _by_name, takes=_BARE),
    Way("Connect ListGames", "key", _connect_unary(_listing), _by_name, lists=True),
    Way("gRPC-Web streams", "key", _grpc_web(_request_of, pb.Round), _by_code),
    Way("gRPC-Web GetHistory", "key", _grpc_web(_page_of, pb.GetHistoryResponse), _by_code),
)
PROTOCOLS: Final = {
    "REST": REST,
    "SSE": EVENT_STREAMS,
    "WebSocket": WEBSOCKETS,
    "gRPC": GRPC,
    "Connect and gRPC-Web": CONNECT,
}
