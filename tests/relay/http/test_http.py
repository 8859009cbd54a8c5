"""HTTP behaviour common to all paths: errors, CORS, probes, tokens, and hostile requests."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import quote

import pytest
from nats.aio.msg import Msg

from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, stored
from auth.tokens import TokenSigner
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer, nats_client
from tests.relay.conftest import Publish, StartRelay
from tests.relay.raw_http import RawAnswer, connection, exchange, parse
from tests.relay.serving import serving

pytestmark = pytest.mark.service

KEY = f"X-API-Key: {DEMO_KEY}"
PREFLIGHT = ("Origin: https://page.example", "Access-Control-Request-Method: GET")


def assert_is_error(answer: RawAnswer, status: int, code: str) -> None:
    """Every error has this form: a sentence, ``success`` and a stable code, in this order."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert list(answer.json) == ["error", "success", "code"]
    assert (answer.json["success"], answer.json["code"]) == (False, code)
    assert answer.json["error"].strip()


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nope", "/ws/crash/x", "/sse/type/", "/api/auth", "/%2e%2e/etc/passwd"])
async def test_unknown_path(relay: str, path: str) -> None:
    """404 with the error body, which names /docs."""
    answer = await exchange(relay, f"GET {path} HTTP/1.1")

    assert_is_error(answer, 404, "not_found")
    assert "/docs" in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/auth/token", "POST"),
        ("POST", "/sse/crash", "GET"),
        ("DELETE", "/ws", "GET"),
        ("HEAD", "/sse", "GET"),
        ("POST", "/healthz", "GET,HEAD"),
    ],
)
async def test_wrong_method(relay: str, method: str, path: str, allowed: str) -> None:
    """405 with `Allow` (RFC 9110 section 15.5.6)."""
    answer = await exchange(relay, f"{method} {path} HTTP/1.1", KEY)

    if method != "HEAD":
        assert_is_error(answer, 405, "method_not_allowed")
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("request_line", ["POST /api/auth/token HTTP/1.1", "GET /sse/crash HTTP/1.1"])
@pytest.mark.parametrize(
    "header", ["X-Other: x", f"X-API-Key: sk_live_{'1' * 64}", "X-API-Key: x", "Authorization: Bearer x"]
)
async def test_wrong_or_missing_credential(relay: str, request_line: str, header: str) -> None:
    """401 names the scheme (RFC 9110 section 11.6.1) and does not repeat the credential."""
    answer = await exchange(relay, request_line, header, "Content-Length: 0")

    assert_is_error(answer, 401, "invalid_credential")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert b"1111" not in answer.body


async def test_two_different_credentials(relay: str) -> None:
    """400: the request is ambiguous."""
    answer = await exchange(relay, f"GET /sse/crash?api_key=sk_live_{'1' * 64} HTTP/1.1", KEY)

    assert_is_error(answer, 400, "ambiguous_credential")


async def test_game_that_the_key_does_not_cover(start_relay: StartRelay, some_games: KeyRing) -> None:
    """403 names the games of this key; a request for all games of a type gets those."""
    async with start_relay(keys=some_games) as url:
        for path in ("/sse/dice", "/sse?games=crash,dice", "/sse/type/color"):
            assert_is_error(await exchange(url, f"GET {path} HTTP/1.1", KEY), 403, "not_allowed")


@pytest.fixture
def some_games() -> KeyRing:
    """The demo's key, for one game only."""

    return KeyRing((Key("demo", "private", games=frozenset({"crash"}), secrets=(stored(DEMO_KEY),)),))


async def test_public_key_needs_an_origin_of_its_own(start_relay: StartRelay, own_origin: KeyRing) -> None:
    """A browser's key is valid from its own pages only."""
    key = f"X-API-Key: {DEMO_PUBLIC_KEY}"
    async with start_relay(keys=own_origin) as url:
        ask = ("POST /api/auth/token HTTP/1.1", key, "Content-Length: 0")
        for origin in (
            "X-Origin: none",
            "Origin: https://evil.example",
            "Origin: null",
            "Origin: https://app.example.evil",
        ):
            assert_is_error(await exchange(url, *ask, origin), 403, "not_allowed_origin")
        assert (await exchange(url, *ask, "Origin: https://app.example")).status == 200


@pytest.fixture
def own_origin() -> KeyRing:
    """The demo's public key, for the pages of one origin only."""

    origins = frozenset({"https://app.example"})
    return KeyRing((Key("demo", "public", allowed_origins=origins, secrets=(stored(DEMO_PUBLIC_KEY),)),))


@pytest.mark.parametrize(
    "lines",
    [
        ["nonsense"],
        ["GET /sse/crash HTTP/9.9"],
        ["GET /sse/crash HTTP/1.1", "no colon here"],
        ["GET /sse/crash HTTP/1.1", "X: a\x00b"],
        ["POST /api/auth/token HTTP/1.1", "Content-Length: -1"],
        ["POST /api/auth/token HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"],
    ],
    ids=["no_request", "version", "header", "nul", "negative_length", "smuggling"],
)
async def test_bytes_that_are_not_http_get_the_error_body(relay: str, lines: list[str]) -> None:
    """400, without a traceback or the names of libraries."""
    answer = await exchange(relay, *lines, KEY)

    assert_is_error(answer, 400, "bad_request")
    assert b"Traceback" not in answer.body
    assert "aiohttp" not in answer.headers.get("server", "").lower()


async def test_connection_without_a_request_is_closed(start_relay: StartRelay, publish: Publish) -> None:
    """Silent, or slow to finish its first request: it is closed after `request_s`. An open stream stays."""
    async with (
        start_relay(http={"host": "127.0.0.1", "port": 0, "request_s": 0.3}) as url,
        connection(url) as stream,
        connection(url) as silent,
        connection(url) as slow,
    ):
        await stream.send(f"GET /sse/crash HTTP/1.1\r\nHost: x\r\n{KEY}\r\n\r\n".encode())
        await slow.send(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert await silent.rest() == await slow.rest() == b""
        await publish("crash", 1)
        await stream.until(b"data: ")


async def test_malformed_requests_affect_no_other_client(relay: str) -> None:
    """Each ends its own connection only."""
    for _ in range(20):
        await exchange(relay, "nonsense")

    assert (await exchange(relay, "GET /healthz HTTP/1.1")).status == 200


# --- tokens ------------------------------------------------------------------------------------------------------


async def test_token_answer_holds_strings_only(relay: str) -> None:
    """Given clients decode it into a map of strings; no cache may keep it."""
    answer = await exchange(relay, "POST /api/auth/token HTTP/1.1", KEY, "Content-Length: 0")

    assert answer.status == 200
    assert sorted(answer.json) == ["expires_at", "token"]
    assert all(isinstance(value, str) for value in answer.json.values())
    assert answer.headers["cache-control"] == "no-store"


async def test_token_body_is_not_read(relay: str) -> None:
    """A client that posts JSON or other bytes gets a token."""
    body = b'{"key":"x"}'
    answer = await exchange(relay, "POST /api/auth/token HTTP/1.1", KEY, f"Content-Length: {len(body)}", body=body)

    assert answer.status == 200


async def test_key_in_the_url_gets_no_token(relay: str) -> None:
    """URLs are logged; only an EventSource cannot set headers."""
    answer = await exchange(relay, f"POST /api/auth/token?api_key={DEMO_KEY} HTTP/1.1", "Content-Length: 0")

    assert_is_error(answer, 401, "invalid_credential")
    assert answer.json["error"] == "a key in the URL is accepted on /sse only; send an API key in X-API-Key"
    assert DEMO_KEY.encode() not in answer.body


async def test_misspelt_parameter_is_refused(relay: str) -> None:
    """400 with the known parameters: `?minpoint=2` must not stream everything."""
    answer = await exchange(relay, "GET /sse/crash?minpoint=2 HTTP/1.1", KEY)

    assert_is_error(answer, 400, "bad_request")
    assert "'minpoint'" in answer.json["error"]
    assert "min_point" in answer.json["error"]
    assert "games" not in answer.json["error"]  # the path names the game


@pytest.mark.parametrize(
    ("request_line", "name"),
    [
        ("GET /sse/crash?last=1&last=2", "last"),
        ("GET /sse/crash?lastEventId=a-1&lastEventId=a-2", "lastEventId"),
        (f"GET /sse/crash?api_key={DEMO_KEY}&api_key={DEMO_KEY}", "api_key"),
    ],
)
async def test_parameter_given_twice_is_refused(relay: str, request_line: str, name: str) -> None:
    """400, instead of ignoring one of the two."""
    answer = await exchange(relay, f"{request_line} HTTP/1.1", KEY)

    assert_is_error(answer, 400, "bad_request")
    assert answer.json["error"] == f"{name} is given more than once; it takes one value"


async def test_token_with_a_parameter_is_refused(relay: str) -> None:
    """A token cannot be limited to games by naming them in the URL."""
    answer = await exchange(relay, "POST /api/auth/token?games=crash HTTP/1.1", "Content-Length: 0", KEY)

    assert_is_error(answer, 400, "bad_request")
    assert answer.json["error"] == "unknown query parameter 'games'; this path takes none"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
async def test_probes_and_pages_take_any_query(relay: str, path: str) -> None:
    """Parameters that platforms or scrapers add must not fail a probe or a page."""
    assert (await exchange(relay, f"GET {path}?x=1&x=2 HTTP/1.1")).status == 200


# --- browsers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/auth/token", "/sse/crash", "/nope"])
async def test_preflight_is_answered_on_every_path(relay: str, path: str) -> None:
    """A preflight has no key, so its answer is the same on every path."""
    answer = await exchange(relay, f"OPTIONS {path} HTTP/1.1", *PREFLIGHT)

    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    for name in ("X-API-Key", "Last-Event-ID", "Authorization"):
        assert name in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "names", ["cache-control", "traceparent,tracestate", "baggage, X-API-Key", "if-none-match", "X-Anything"]
)
async def test_preflight_allows_the_headers_that_it_asks_for(relay: str, names: str) -> None:
    """Libraries add headers by themselves: npm `eventsource` 2 `Cache-Control`, tracing `traceparent` and `baggage`."""
    answer = await exchange(
        relay, "OPTIONS /sse/crash HTTP/1.1", *PREFLIGHT, f"Access-Control-Request-Headers: {names}"
    )

    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert allowed >= {name.strip().lower() for name in names.split(",")} | {"x-api-key", "last-event-id"}
    assert "Access-Control-Request-Headers" in answer.headers["vary"]


@pytest.mark.parametrize("names", ["a b", "x,,y", "é", "x" * 3000, '"quoted"', "a;b"])
async def test_preflight_does_not_echo_what_is_no_list_of_names(relay: str, names: str) -> None:
    """The answer then has the headers that the relay reads."""
    answer = await exchange(
        relay, "OPTIONS /sse/crash HTTP/1.1", *PREFLIGHT, f"Access-Control-Request-Headers: {names}"
    )

    assert answer.status == 204
    assert names not in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("origin", ["https://page.example", "null", "file://", "app://."])
async def test_event_stream_with_credentials_names_the_origin(relay: str, origin: str) -> None:
    """An EventSource with `withCredentials` needs its origin and `Access-Control-Allow-Credentials`."""
    async with connection(relay) as link:
        await link.send(
            f"GET /sse/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: {DEMO_KEY}\r\nOrigin: {origin}\r\n\r\n".encode()
        )
        answer = parse(await link.until(b"\r\n\r\n"))

    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"


async def test_event_stream_for_an_origin_that_is_not_ascii(relay: str) -> None:
    """It cannot be named in a header: the stream opens, without credentials."""
    async with connection(relay) as link:
        await link.send(
            f"GET /sse/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: {DEMO_KEY}\r\nOrigin: https://π.example\r\n\r\n".encode()
        )
        answer = parse(await link.until(b"\r\n\r\n"))

    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")


async def test_pages_of_other_origins_read_answers_and_errors(relay: str) -> None:
    """A page that cannot read an error cannot show it."""
    for line in ("GET /healthz HTTP/1.1", "GET /sse/crash HTTP/1.1", "GET /nope HTTP/1.1"):
        answer = await exchange(relay, line, "Origin: https://page.example")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


# --- probes ------------------------------------------------------------------------------------------------------


async def test_probes_of_a_ready_relay(relay: str) -> None:
    """Alive and ready, without a key, and never from a cache."""
    alive, ready = await exchange(relay, "GET /healthz HTTP/1.1"), await exchange(relay, "GET /readyz HTTP/1.1")

    assert (alive.status, ready.status, ready.json) == (200, 200, {"status": "ready"})
    assert alive.headers["cache-control"] == ready.headers["cache-control"] == "no-store"


# --- hostile slugs -----------------------------------------------------------------------------------------------

SLUGS = {
    "dot": ".", "dots": "..", "star": "*", "tail": ">", "blank": " ", "tab": "\t", "empty": "", "nul": "\0",
    "new_line": "cra\nsh", "carriage_return": "crash\r\nPUB rounds.crash 0", "unicode": "\u00e9\u4e16",
    "lookalike": "\u0441rash", "long": "a" * 7000, "slash": "a/b", "a_path": "type/color", "upper_case": "Crash",
    "two_tokens": "crash.dice", "api": "$JS.API.STREAM.DELETE.ROUNDS", "percent": "%", "quote": '"',
    "template": "{game}",
}  # fmt: skip


OURS = ("$JS.API.DIRECT.GET.ROUNDS", "$JS.API.STREAM.INFO.ROUNDS", "relay.limits.ROUNDS", "_INBOX.")
"""All that a relay says to NATS."""


@pytest.fixture
async def published_subjects(nats: NatsServer) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Record every subject that is published to during the test."""
    subjects: list[str] = []

    async def hear(message: Msg) -> None:
        subjects.append(message.subject)

    async with nats_client(LogSettings(url=nats.url)) as nc:
        await nc.subscribe(">", cb=hear)
        await nc.flush()

        async def all_so_far() -> list[str]:
            await nc.flush()
            return subjects

        yield all_so_far


@pytest.mark.parametrize("name", SLUGS)
async def test_hostile_slug_is_refused_and_never_reaches_nats(
    relay: str, published_subjects: Callable[[], Awaitable[list[str]]], name: str
) -> None:
    """Client input never becomes a subject; the answer is that there is no such game."""
    slug = quote(SLUGS[name], safe="")
    paths = [f"/sse/{slug}", f"/sse/type/{slug}", f"/sse?games={slug}", f"/sse?games=crash,{slug}"]
    paths += [path.replace("/sse", "/ws", 1) for path in paths]
    paths += [f"/api/latest/{slug}", f"/api/history/{slug}"]
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}==")
    for path in paths:
        answer = await exchange(relay, f"GET {path} HTTP/1.1", KEY, *(upgrade if path.startswith("/ws") else ()))
        assert answer.status in (400, 404), path
        assert answer.json["success"] is False

    assert [subject for subject in await published_subjects() if not subject.startswith(OURS)] == []


# --- secrets -----------------------------------------------------------------------------------------------------


async def test_no_key_or_token_reaches_a_log(nats: NatsServer) -> None:
    """Valid and invalid secrets, in every position, at debug level: none of them is logged."""
    async with serving(nats.url, RELAY_LOG_LEVEL="debug", RELAY_LOG_FORMAT="json") as relay:
        token, _ = TokenSigner.parse(relay.token_secrets).issue(Key("k", "private"))
        altered, other_key = f"{token[:-6]}AAAAAA", f"sk_live_{'5' * 64}"
        secrets = [relay.key, token, altered, other_key]
        for secret in secrets:
            for path in ("/sse/crash", "/ws/crash", "/api/auth/token", "/nope", f"/sse/{secret}", f"/{secret}"):
                for lines in secret_positions(path, secret):
                    async with connection(relay.url) as link:
                        await link.send("\r\n".join([*lines, "Host: x", "", ""]).encode())
                        await link.until(b"\r\n")
    printed = "\n".join(relay.printed)
    assert "link_opened" in printed
    for secret in secrets:
        assert secret not in printed
        assert secret[8:40] not in printed, "not even a part of it"


def secret_positions(path: str, secret: str) -> Iterator[list[str]]:
    """Requests with a secret in every position, allowed or not."""
    end = "HTTP/1.0"
    upgrade = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {'A' * 22}==",
    ]
    yield [f"GET {path} {end}", f"X-API-Key: {secret}"]
    yield [f"POST {path} {end}", f"Authorization: Bearer {secret}", "Content-Length: 0"]
    yield [f"GET {path}?api_key={secret} {end}"]
    yield [f"GET {path}?token={secret}&after={secret} {end}"]
    yield [f"GET {path}?games={secret}&min_point={secret} {end}"]
    yield [f"GET {path} {end}", *upgrade, f"Sec-WebSocket-Protocol: {secret}"]
    yield [f"GET {path} HTTP/1.1", *upgrade, f"Sec-WebSocket-Protocol: {secret}, datastream.v1"]
    yield [f"GET {path} {end}", f"X-API-Key {secret}"]
    yield [f"{secret} {path} {end}"]
    yield [f"GET {path}?api_key={secret}"]
    yield [f"GET {path} {end}", f"X-API-Key: {secret}\x00"]
