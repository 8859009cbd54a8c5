"""The OpenAPI description of the HTTP paths, and the page that shows it.

Owns only descriptions: a test compares every path, parameter and schema with the routes and with real answers.
"""

from functools import cached_property
from importlib import resources
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from auth.tokens import LIFE_S
from relay.config.sections import Access
from relay.history.query import DEFAULT_LIMIT, MAX_LIMIT
from relay.history.start import MAX_LAST, MAX_SPEED, MIN_SPEED
from relay.http.pages.static_file import StaticFile
from relay.http.security_headers import page_headers
from relay.http.sse.sse_client import ENDS, MAX_HEARTBEAT_S

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_NULLABLE_TEXT: Final[Json] = {"type": ["string", "null"]}

_ROUND_FIELDS: Final[Json] = {
    "round_id": {"type": "integer", "format": "int64", "description": "Unique within its game."},
    "game_slug": _TEXT,
    "game_type": _TEXT,
    "finished_at": {**_TIME, "description": "RFC 3339 in UTC."},
    "extras": {**_TEXT, "description": "A JSON document as text; the numbers in it are strings."},
    "timestamp": {"type": "integer", "format": "int64", "description": "When the round was committed, Unix ms."},
    "cursor": {**_TEXT, "description": "The position of the round in the log: send it as `after` to resume here."},
}
_OF_CORRECTIONS: Final[Json] = {
    "revision": {
        "type": "integer",
        "format": "int32",
        "minimum": 2,
        "description": "Only in corrections: the largest is the newest state of the round with this `round_id`.",
    },
    "voided": {"const": True, "description": "Only in corrections: the round is taken back."},
}

_SCHEMAS: Final[Json] = {
    "Round": {"type": "object", "required": list(_ROUND_FIELDS), "properties": {**_ROUND_FIELDS, **_OF_CORRECTIONS}},
    "LatestRound": {
        "type": "object",
        "required": [*_ROUND_FIELDS, "value"],
        "properties": {
            **_ROUND_FIELDS,
            **_OF_CORRECTIONS,
            "value": {**_NULLABLE_TEXT, "description": "The main figure of the extras."},
        },
    },
    "Game": {
        "type": "object",
        "required": ["slug", "name", "type", "last_round", "last_update"],
        "properties": {
            "slug": _TEXT,
            "name": _TEXT,
            "type": _TEXT,
            "last_round": {"type": ["integer", "null"], "format": "int64"},
            "last_update": {"type": ["string", "null"], "format": "date-time"},
        },
    },
    "Token": {
        "type": "object",
        "required": ["token", "expires_at"],
        "properties": {
            "token": _TEXT,
            "expires_at": _TIME,
            "games": {**_TEXT, "description": "The games of a narrowed token, separated by commas; else absent."},
        },
    },
    "TokenRequest": {
        "type": "object",
        "description": "Narrows the token. Any other body is ignored, unless it misspells one of these members.",
        "properties": {
            "games": {"type": "array", "items": _TEXT, "minItems": 1, "description": "Only these games of the key."},
            "types": {"type": "array", "items": _TEXT, "minItems": 1, "description": "And games of these types."},
            "ttl_s": {"type": "integer", "minimum": 1, "maximum": LIFE_S, "default": LIFE_S},
            "subject": {**_TEXT, "maxLength": 128, "description": "Whom it is for; a revocation can name it."},
        },
    },
    "KeySet": {
        "type": "object",
        "description": "A JSON Web Key Set (RFC 7517).",
        "required": ["keys"],
        "properties": {
            "keys": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["kty", "kid", "alg", "use"],
                    "properties": dict.fromkeys(("kty", "kid", "alg", "use", "crv", "x", "y", "n", "e"), _TEXT),
                },
            }
        },
    },
    "Error": {
        "type": "object",
        "required": ["error", "success", "code"],
        "properties": {
            "error": {**_TEXT, "description": "One sentence: the error, and what is allowed."},
            "success": {"const": False},
            "code": {**_TEXT, "description": "A stable word for programs."},
        },
    },
    "ConnectError": {
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {**_TEXT, "description": "One of Connect's codes."},
            "message": {**_TEXT, "description": "One sentence: the error, and what is allowed."},
            "details": {
                "type": "array",
                "items": {"type": "object"},
                "description": "A `google.rpc.ErrorInfo`: its `reason` is the `code` of `Error`.",
            },
        },
    },
    "Probes": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": _TEXT, "reason": _TEXT, "detail": _TEXT},
    },
}


def _query(name: str, description: str, schema: Json = _TEXT) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": _TEXT}


def _path(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": _TEXT}


_GAME: Final = _path("game", "The slug of a game, such as `crash`.")
_TYPE: Final = _path("type", "A type of games, such as `multiplier`.")
_METHOD: Final = _path("method", "A method of `datastream.DataStream`, such as `GetLatest`.")
_GAMES: Final = _query("games", "Several games, separated by commas or repeated. Default: all games of the key.")
_FILTERS: Final = [
    _query("min_point", "The least `point`, inclusive. A round without one does not match.", {"type": "number"}),
    _query("max_point", "The largest `point`, inclusive.", {"type": "number"}),
    _query("colors", "Any of these colors, separated by commas or repeated."),
    _query("trends", "Any of these trends, separated by commas or repeated."),
]
_CORRECTIONS: Final = _query(
    "corrections",
    "`1` or `true`: also corrections of rounds, whether or not they match the filter.",
    {"enum": ["0", "1", "false", "true"], "default": "0"},
)
_RANGE: Final = [
    _query("after", "Only rounds after this cursor."),
    _query("from", "The first moment, inclusive.", _TIME),
    _query("to", "The last moment, inclusive.", _TIME),
]
_START: Final = [
    *_RANGE,
    _query("last", "Begin this many rounds of each game back.", {"type": "integer", "minimum": 1, "maximum": MAX_LAST}),
    _query(
        "speed",
        "Replay speed as a multiple of the original one. Default: as fast as the client reads.",
        {"type": "number", "minimum": MIN_SPEED, "maximum": MAX_SPEED},
    ),
    _query(
        "hello",
        "`1`: send events such as `hello` also without a cursor or a time; `0`: send none, even with one.",
        {"type": "integer", "minimum": 0, "maximum": 1},
    ),
]
_PAGE: Final = [
    _query("before", "Only rounds before this cursor; `Link: rel=next` contains it."),
    *_RANGE,
    *_FILTERS,
    _CORRECTIONS,
    _query(
        "limit",
        "The largest number of rounds.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
]


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(
    description: str, schema: Json, media: str = "application/json", headers: dict[str, str] | None = None
) -> Json:
    """Describe an answer with a body; `headers` are names and descriptions of those that clients use."""
    answer: Json = {"description": description, "content": {media: {"schema": schema}}}
    if headers:
        answer["headers"] = {name: {"description": text, "schema": _TEXT} for name, text in headers.items()}
    return answer


_ERROR: Final = _answer(
    "An error.", _schema("Error"), headers={"Retry-After": "With 429 and 503: seconds after which to retry."}
)
_QUOTA: Final = {
    "X-Ratelimit-Limit": "The nearest limit of the key; absent when the key has none.",
    "X-Ratelimit-Remaining": "How much of it is left.",
    "X-Ratelimit-Reset": "Seconds until all of it is there again.",
}
_OVER_LIMIT: Final = "The key, or the address, is over a limit."
_RETRY: Final = {"Retry-After": "Seconds after which to retry."}


def _with_quota(answer: Json) -> Json:
    """Add the headers that tell the nearest limit."""
    quota = {name: {"description": text, "schema": _TEXT} for name, text in _QUOTA.items()}
    return {**answer, "headers": {**answer.get("headers", {}), **quota}}


def _operation(
    summary: str,
    answer: Json,
    *parameters: Json,
    status: str = "200",
    security: bool = True,
    others: Json | None = None,
    error: Json = _ERROR,
) -> Json:
    """Describe a method of a path. `others` are further answers that are not errors, by status."""
    answers: Json = {status: answer, **(others or {})}
    if security:
        answers = {known: _with_quota(each) for known, each in answers.items()}
        body = next(iter(error["content"].values()))["schema"]
        answers["429"] = _with_quota(_answer(_OVER_LIMIT, body, headers=_RETRY))
    operation: Json = {"summary": summary, "parameters": list(parameters), "responses": {**answers, "default": error}}
    if not security:
        operation["security"] = []
    return operation


def _readable(summary: str, answer: Json, *parameters: Json, **more: Any) -> Json:
    """Describe GET and HEAD of a path: both are the same, except for the body."""
    get = _operation(summary, answer, *parameters, **more)
    bare = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in get["responses"].items()
    }
    return {"get": get, "head": {**get, "summary": f"{summary}: headers only", "responses": bare}}


_PLACE: Final = {"Head-Cursor": "The cursor at which a stream without a start in the past begins."}
_SSE: Final = _answer(
    "An event stream: `id` is the cursor, `data` a round. It ends with `retry` when the client should reconnect.",
    {"type": "string"},
    "text/event-stream",
    _PLACE,
)
_WS: Final[Json] = {
    "description": "The handshake is complete: one round per text frame.",
    "headers": {name: {"description": text, "schema": _TEXT} for name, text in _PLACE.items()},
}
_NOTHING_LEFT: Final[Json] = {
    "description": "A stream with an end (`to`) has no more rounds: an EventSource then does not reconnect."
}
_ROUNDS: Final = _answer(
    "Rounds, newest first.",
    {"type": "array", "items": _schema("Round")},
    headers={
        "Link": '`<…>; rel="next"`: the next page; the last page has none.',
        "X-History-Complete": "`false` when requested rounds have expired; else absent.",
    },
)
_ETAG: Final = {"ETag": "Names this round: send it as `If-None-Match`."}
_LATEST: Final = _answer("A round.", _schema("LatestRound"), headers=_ETAG)
_UNCHANGED: Final[Json] = {
    "description": "The round that `If-None-Match` names is still the newest.",
    "headers": {name: {"description": text, "schema": _TEXT} for name, text in _ETAG.items()},
}
_RPC: Final = _answer("The method's answer.", {"type": "object"})
_RPC_ERROR: Final = _answer("An error of Connect; a stream has it in its last message.", _schema("ConnectError"))
_RPC_GET: Final = [
    _query("encoding", "The encoding of the message.", {"enum": ["json", "proto"], "default": "json"}),
    _query("message", "The request, as text or in URL-safe base64."),
    _query("base64", "`1`: the message is in base64."),
    _query("compression", "The compression of the message.", {"enum": ["identity", "gzip"], "default": "identity"}),
]


def _stream(summary: str, *parameters: Json) -> tuple[Json, Json]:
    token = _query("token", "A stream token, for clients that cannot offer a subprotocol.")
    ws = _operation(
        f"{summary} over WebSocket", _WS, *parameters, *_START, *_FILTERS, _CORRECTIONS, token, status="101"
    )
    ws["description"] = "The token of `POST /api/auth/token` is offered as a subprotocol."
    sse_parameters = [
        *parameters,
        *_START,
        *_FILTERS,
        _CORRECTIONS,
        _query(
            "heartbeat",
            "Seconds between comments, if less than usual.",
            {"type": "integer", "minimum": 1, "maximum": MAX_HEARTBEAT_S},
        ),
        _query(
            "end",
            "Whether the body is complete when the stream ends; `auto`: as suits the client.",
            {"enum": list(ENDS), "default": "auto"},
        ),
        _query("api_key", "The key, for clients that cannot set headers."),
        _query("token", "A stream token instead of a key."),
        _header("Last-Event-ID", "The last `id`, as an EventSource sends it when it reconnects; overrides `after`."),
        _query("lastEventId", "The same, for polyfills that cannot send headers."),
    ]
    sse = _operation(f"{summary} as server-sent events", _SSE, *sse_parameters, others={"204": _NOTHING_LEFT})
    return {"get": ws}, {"get": sse}


def _token() -> Json:
    token = _operation("Exchange a key for a token of 30 seconds", _answer("A token.", _schema("Token")))
    token["description"] = (
        "The bearer may also be a JWT of the operator's identity provider, where one is set. 400: the body is wrong. "
        "401: the key or JWT is not accepted. 403: it does not cover a game. 503: the provider cannot be reached."
    )
    token["requestBody"] = {"required": False, "content": {"application/json": {"schema": _schema("TokenRequest")}}}
    return token


def _paths(metrics: Access) -> Json:
    one, kind, several = (
        _stream("Stream a game", _GAME),
        _stream("Stream a type", _TYPE),
        _stream("Stream several games, or all", _GAMES),
    )
    return {
        "/api/auth/token": {"post": _token()},
        "/.well-known/jwks.json": _readable(
            "The public keys of our tokens; none with shared secrets",
            _answer("Keys.", _schema("KeySet")),
            security=False,
        ),
        "/ws": several[0],
        "/ws/{game}": one[0],
        "/ws/type/{type}": kind[0],
        "/sse": several[1],
        "/sse/{game}": one[1],
        "/sse/type/{type}": kind[1],
        "/api/games": _readable("List games", _answer("Games.", {"type": "array", "items": _schema("Game")})),
        "/api/latest/{game}": _readable(
            "The newest round of a game",
            _LATEST,
            _GAME,
            _query(
                "corrections",
                "`1` or `true`: the newest correction of that round, if it has one.",
                {"enum": ["0", "1", "false", "true"], "default": "0"},
            ),
            _header("If-None-Match", "The `ETag` of an earlier answer; 304 when there is no newer round."),
            others={"304": _UNCHANGED},
        ),
        "/api/history": _readable("Past rounds of several games, or of all", _ROUNDS, _GAMES, *_PAGE),
        "/api/history/{game}": _readable("Past rounds of a game", _ROUNDS, _GAME, *_PAGE),
        "/api/history/type/{type}": _readable("Past rounds of a type", _ROUNDS, _TYPE, *_PAGE),
        "/api/grpc/datastream.DataStream/{method}": {
            "get": _operation("Call the gRPC service by Connect's GET", _RPC, _METHOD, *_RPC_GET, error=_RPC_ERROR),
            "post": _operation("Call the gRPC service by Connect or gRPC-Web", _RPC, _METHOD, error=_RPC_ERROR),
        },
        "/healthz": _readable("Is the process alive?", _answer("Yes.", _schema("Probes")), security=False),
        "/readyz": _readable(
            "Does it take new clients?",
            _answer("Yes.", _schema("Probes")),
            security=False,
            others={"503": _answer("No, for this reason.", _schema("Probes"))},
        ),
        "/metrics": _readable(
            "Metrics for Prometheus", _answer("Metrics.", _TEXT, "text/plain"), security=metrics == "key"
        ),
    }


def document(metrics: Access = "public") -> Json:
    """Return the description as OpenAPI 3.1; `metrics`: who may read ``/metrics``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stream-relay",
            "version": version("stream-relay"),
            "description": "Live game rounds over WebSocket, server-sent events and REST. One cursor works everywhere.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"bearer": []}],
        "paths": {path: methods for path, methods in _paths(metrics).items() if path != "/metrics" or metrics != "off"},
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


class Docs:
    """Serves the description and its page, which loads nothing else. Both are made at the first request."""

    def __init__(self, metrics: Access = "public", *, is_public: bool = True) -> None:
        """Prepare to answer.

        Args:
            metrics: Who may read ``/metrics``.
            is_public: Whether shared caches may keep the description.
        """
        self._metrics: Access = metrics
        self._caching = {"Cache-Control": "no-cache" if is_public else "private, no-cache"}

    def description(self) -> list[web.RouteDef]:
        """Return the route of the description alone."""
        return [web.get("/openapi.json", self.describe)]

    def page(self) -> list[web.RouteDef]:
        """Return the route of the page alone, which shows nothing without the description."""
        return [web.get("/docs", self.show)]

    async def describe(self, request: web.Request) -> web.Response:
        """Answer the description."""
        return await self._description.answer(request)

    async def show(self, request: web.Request) -> web.Response:
        """Answer the page."""
        return await self._page.answer(request)

    @cached_property
    def _description(self) -> StaticFile:
        return StaticFile(msgspec.json.encode(document(self._metrics)), "application/json", self._caching)

    @cached_property
    def _page(self) -> StaticFile:
        page = resources.files("relay.http").joinpath("static/docs.html").read_text("utf-8")
        return StaticFile(page.encode(), "text/html; charset=utf-8", page_headers(page, connects_to="'self'"))
