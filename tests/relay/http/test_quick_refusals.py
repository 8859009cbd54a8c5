"""Requests over a limit are refused by the bytes of their head, and look as if they had been parsed."""

from collections.abc import AsyncIterator

import pytest

from auth.grants import Grant
from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.tokens import TokenSigner
from relay.admission.capacity import Capacity
from relay.admission.gate import Admission
from relay.admission.limits.limits import ClientLimits
from relay.admission.refusals import Refusals
from relay.config.sections import LimitSettings
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import TooManyRequests
from relay.http.connections.quick_refusals import QuickRefusals
from relay.live.ending import ReconnectDelays
from tests.relay.conftest import StartRelay
from tests.relay.raw_http import connection, exchange, parse

SPENT, _ = generate("private")
PAGE, _ = generate("public")
GOOD, _ = generate("private")
WRONG, _ = generate("private")
KEYS = (
    Key("spent", "private", secrets=(stored(SPENT),), limits=Limits(requests_per_min=1, links_per_s=0.001)),
    Key(
        "page",
        "public",
        allowed_origins=frozenset({"https://app.example.com"}),
        secrets=(stored(PAGE),),
        limits=Limits(requests_per_min=1),
    ),
    Key("good", "private", secrets=(stored(GOOD),)),
)
CHANGING = ("date", "retry-after", "x-ratelimit-reset")


def head(*lines: str, request: str = "GET /api/games", key: str = SPENT, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{request} {version}", "Host: relay", f"X-API-Key: {key}", *lines, "", ""]).encode()


@pytest.fixture
def quick() -> QuickRefusals:
    """Refusals while `SPENT` is over its limits, and 10.0.0.9 has sent too many wrong keys."""
    limits = ClientLimits(
        LimitSettings(wrong_credentials_per_min=1), own_limits=lambda _key_id: None, clock=lambda: 9.0
    )
    admission = Admission(
        KeyRing(KEYS),
        TokenSigner.ephemeral(),
        capacity=Capacity.of_links(10),
        delays=ReconnectDelays(0),
        limits=limits,
    )
    grant = Grant.of(KEYS[0])
    quick = QuickRefusals(admission, Refusals(), TrustedProxies.parse("10.0.0.1"))
    limits.request(grant, "")
    limits.request(Grant.of(KEYS[1]), "127.0.0.1")
    limits.open(grant, "")
    for address in ("10.0.0.9", "10.0.0.1"):
        limits.wrong.add(address)
        with pytest.raises(TooManyRequests):
            limits.wrong.add(address)
    assert quick.is_active
    return quick


@pytest.mark.parametrize(
    ("data", "closes"),
    [
        (head(), False),
        (head(request="POST /api/auth/token"), False),
        (head(request="GET /ws/crash"), False),
        (head("Origin: https://app.example.com", key=PAGE), False),
        (head().replace(b"X-API-Key: ", b"Authorization: Bearer "), False),
        (head().replace(b"X-API-Key: ", b"x-api-key:"), False),
        (head("Content-Length: 0", request="POST /api/auth/token"), False),
        (head("Content-Length: 3", request="POST /api/auth/token") + b"{}\n", True),
        (head("Transfer-Encoding: chunked", request="POST /api/auth/token"), True),
        (head("Expect: 100-continue"), True),
        (head("Connection: close"), True),
        (head("Connection: keep-alive, close"), True),
        (head("Content-Length: 02"), True),
        (head("Content-Length: 0", "Content-Length: 2"), True),
        (head("Content-Length: +2"), True),
        (head() + head(), True),  # pipelined
    ],
)
def test_head_over_a_limit(quick: QuickRefusals, data: bytes, closes: bool) -> None:
    """It is answered, and the connection stays unless more may follow that is no head."""
    answer = quick.answer(data, "127.0.0.1")

    assert answer is not None
    assert parse(answer.data).status == 429
    assert answer.closes is closes
    assert (b"Connection: close" in answer.data) is closes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        head()[:-2],  # incomplete
        head(key=GOOD),
        head("Origin: https://app.example.com"),  # a private key in a page, of which the answer warns
        head(key=WRONG),  # not from an address with many wrong keys
        head(key="sk_live_0"),
        head(f"Authorization: Bearer {GOOD}"),  # two credentials
        head("Sec-WebSocket-Protocol: a.b.c", request="GET /ws/crash"),
        head(request="GET /healthz"),
        head(request="GET /sse/crash"),  # an event stream gets 200
        head(request="GET /ws/crash?after=k1-1"),
        head(request="POST /api/grpc/datastream.DataStream/ListGames"),  # errors of Connect look different
        head(request="OPTIONS /api/games"),
        head("Content-Length:", " 2"),  # folded
        head("Content-Length : 2"),
        head("X: 1\nContent-Length: 2"),
        head("X: 1\rContent-Length: 2"),
        head("no header"),
        head(request="HEAD /api/games"),  # its answer has no body
        head(version="HTTP/1.0"),
        head(version="HTTP/2.0"),
        b"GET /api/games HTTP/1.1\r\nReferer: https://a/?X-API-Key: " + SPENT.encode() + b"\r\n\r\n",
        b"\0" * 2048,
    ],
)
def test_everything_else_is_handled_as_usual(quick: QuickRefusals, data: bytes) -> None:
    """What is not surely over a limit."""
    assert quick.answer(data, "127.0.0.1") is None


def test_wrong_key_is_refused_by_its_address(quick: QuickRefusals) -> None:
    """Its connection is closed; a valid key from there is accepted, and addresses behind a proxy are known later."""
    wrong = quick.answer(head(key=WRONG), "::ffff:10.0.0.9")
    assert wrong is not None
    assert wrong.closes
    assert quick.answer(head(key=GOOD), "10.0.0.9") is None
    assert quick.answer(head(key=WRONG), "10.0.0.1") is None


@pytest.fixture
async def relay(start_relay: StartRelay) -> AsyncIterator[str]:
    async with start_relay(keys=KeyRing(KEYS)) as url:
        yield url


@pytest.mark.service
@pytest.mark.parametrize("origin", [(), ("Origin: https://app.example.com",)], ids=["server", "page"])
async def test_quick_refusal_looks_like_the_usual_one(relay: str, origin: tuple[str, ...]) -> None:
    """Whichever way it was made."""
    secret = PAGE if origin else SPENT
    key = f"X-API-Key: {secret}"
    for status in (200, 429):
        answer = await exchange(relay, "GET /api/games HTTP/1.1", key, *origin, "Connection: close")
        assert answer.status == status
    async with connection(relay) as quick:
        await quick.send(head(*origin, key=secret))
        seen = await quick.until(b'"rate_limited"}')
        await quick.send(head(key=GOOD))  # the connection serves other requests
        assert b" 200 OK" in await quick.until(b"\r\n\r\n")
    async with connection(relay) as usual:
        await usual.send(head(*origin, request="GET /api/games?_=1", key=secret))
        other = await usual.until(b'"rate_limited"}')

    one, two = parse(seen), parse(other)
    assert (one.status, one.body) == (two.status, two.body)
    assert one.headers.keys() == two.headers.keys()
    same = one.headers.keys() - set(CHANGING)
    assert {name: one.headers[name] for name in same} == {name: two.headers[name] for name in same}


@pytest.mark.service
async def test_connection_with_quick_refusals_only_is_closed_when_idle(start_relay: StartRelay) -> None:
    """As any other."""
    async with start_relay(
        keys=KeyRing(KEYS), http={"host": "127.0.0.1", "port": 0, "keepalive_s": 1}
    ) as url, connection(url) as used, connection(url) as quick:  # fmt: skip
        await used.send(head() + head())
        await used.until(b'"rate_limited"}')
        await quick.send(head())
        await quick.until(b'"rate_limited"}')
        assert await quick.rest() == b""
