"""Requests that come again are answered as if each was decided: by limits, keys and rounds as they are then."""

import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import aiohttp
import pytest

from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from relay.http.connections.guarded import GuardedHandler
from relay.http.connections.quick_refusals import QuickAnswer
from relay.http.early.known_answers import KnownAnswers
from tests.relay.conftest import Publish, StartRelay
from tests.relay.raw_http import Connection, connection
from tests.waiting import until

pytestmark = pytest.mark.service

GOOD, _ = generate("private")
PAGE, _ = generate("public")
FEW, _ = generate("private")
SOME, _ = generate("private")
ORIGIN: Final = "https://app.example.com"
GOOD_KEY: Final = Key("good", "private", secrets=(stored(GOOD),), limits=Limits(requests_per_min=100_000))
KEYS: Final = (
    GOOD_KEY,
    Key("page", "public", allowed_origins=frozenset({ORIGIN}), secrets=(stored(PAGE),)),
    Key("few", "private", secrets=(stored(FEW),), limits=Limits(requests_per_min=3)),
    Key("some", "private", games=frozenset({"dice"}), secrets=(stored(SOME),)),
)
COUNTED: Final = (
    'relay_limited_total{limit="requests"}',
    'relay_refused_total{protocol="rest",reason="rate_limited"}',
)
USUAL: Final = "TE: trailers"
"""A field that is harmless, and with which a request is handled by aiohttp."""
CHANGING: Final = re.compile(rb"(?<=\r\nDate: )[^\r]+|(?<=-Remaining: )\d+|(?<=-Reset: )\d+")
REQUESTS: Final = (
    "GET /api/games",
    "GET /api/latest/crash",
    "GET /api/history?limit=3",
    "GET /api/history/crash?limit=3",
    "GET /api/history/type/multiplier?limit=3",
)


class Known:
    """The store of the relay, and which requests it has answered."""

    def __init__(self) -> None:
        self.store: KnownAnswers | None = None
        self.hits: list[bool] = []


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    seen, answer = Known(), KnownAnswers.answer

    def noted(self: KnownAnswers, data: bytes, connection: GuardedHandler) -> QuickAnswer | None:
        seen.store = self
        found = answer(self, data, connection)
        if data.startswith(b"GET /api/"):
            seen.hits.append(found is not None)
        return found

    monkeypatch.setattr(KnownAnswers, "answer", noted)
    return seen


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing(KEYS)


@pytest.fixture
async def relay(
    start_relay: StartRelay, publish: Publish, client: aiohttp.ClientSession, ring: KeyRing, known: Known
) -> AsyncIterator[str]:
    """A relay with a few rounds in memory."""
    async with (
        start_relay(keys=ring, usage={"metrics": True}) as url,
        client.ws_connect(f"{url}/ws", headers={"X-API-Key": GOOD}) as watcher,
    ):
        for number in range(1, 6):
            await publish("crash", number)
            await publish("dice", number)
        for _ in range(10):
            await watcher.receive(timeout=20)
        yield url


def head(request: str, *lines: str) -> bytes:
    return "\r\n".join([f"{request} HTTP/1.1", "Host: relay", *lines, "", ""]).encode()


async def answer_to(client: Connection, data: bytes) -> bytes:
    await client.send(data)
    received = await client.until(b"\r\n\r\n")
    if length := re.search(rb"\r\nContent-Length: (\d+)\r\n", received):
        received += await client.reader.readexactly(int(length[1]))
    return received


async def ask(client: Connection, data: bytes) -> bytes:
    """Return the answer to a request, without what differs each time."""
    return CHANGING.sub(b"", await answer_to(client, data))


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "lines",
    [
        (f"X-API-Key: {GOOD}",),
        (f"Authorization: Bearer {GOOD}", "Accept-Encoding: gzip"),
        (f"X-API-Key: {PAGE}", f"Origin: {ORIGIN}"),
    ],
    ids=["private", "compressed", "public"],
)
async def test_answers_are_the_same(relay: str, known: Known, lines: tuple[str, ...]) -> None:
    """To the byte: those that are remembered, the first one, and that of aiohttp."""
    async with connection(relay) as client:
        for request in REQUESTS:
            usual = await ask(client, head(request, *lines, USUAL))
            first = await ask(client, head(request, *lines))
            known.hits.clear()
            assert [await ask(client, head(request, *lines)) for _ in range(3)] == [first] * 3
            assert known.hits == [True] * 3, request
            assert usual == first
            assert status(first) == 200


async def test_client_that_has_the_round(relay: str, known: Known) -> None:
    """304, until the next one comes."""
    async with connection(relay) as client:
        answer = await ask(client, head("GET /api/latest/crash", f"X-API-Key: {GOOD}"))
        etag = re.search(rb"\r\nETag: ([^\r]+)\r\n", answer)
        assert etag is not None
        data = head("GET /api/latest/crash", f"X-API-Key: {GOOD}", f"If-None-Match: {etag[1].decode()}")
        assert [status(await ask(client, data)) for _ in range(3)] == [304] * 3
        assert known.hits[-2:] == [True] * 2


async def test_next_round_is_in_the_next_answer(relay: str, known: Known, publish: Publish) -> None:
    """Also one of another game: each change of the log makes all answers be decided again."""
    data = head("GET /api/latest/crash", f"X-API-Key: {GOOD}")
    games = head("GET /api/games", f"X-API-Key: {GOOD}")
    async with connection(relay) as client:
        for request in (data, games):
            await ask(client, request)
        for number in range(50, 55):
            await publish("crash", number)

            async def has_it(number: int = number) -> bool:
                return f'"round_id":{number},'.encode() in await ask(client, data)

            await until(has_it)
            assert f'"last_round":{number},'.encode() in await ask(client, games)
            assert f'"last_round":{number},'.encode() in await ask(client, games)
        assert known.hits[-1]


async def test_limits_are_counted_each_time(relay: str, known: Known) -> None:
    """The state of the limit is in each answer; one too many is refused."""
    data = head("GET /api/latest/crash", f"X-API-Key: {FEW}")
    async with connection(relay) as client:
        left = []
        for _ in range(3):
            left += re.findall(rb"X-Ratelimit-Remaining: (\d+)", await answer_to(client, data))
        assert left == [b"2", b"1", b"0"]
        assert known.hits == [False, True, True]
        assert status(await ask(client, data)) == 429


async def test_refused_request_is_counted_once(relay: str, client: aiohttp.ClientSession, known: Known) -> None:
    """Also one that is remembered, and has a query: such a one is not refused from its bytes."""

    async def counted() -> list[float]:
        async with client.get(f"{relay}/metrics") as response:
            text = await response.text()
        lines = [line for line in text.splitlines() if line.startswith(COUNTED)]
        return [float(line.rpartition(" ")[2]) for line in lines]

    data = head("GET /api/history?limit=3", f"X-API-Key: {FEW}")
    async with connection(relay) as plain:
        assert [status(await ask(plain, data)) for _ in range(7)] == [200] * 3 + [429] * 4
    assert known.hits[:3] == [False, True, True]
    assert await counted() == [4, 4]


async def test_what_a_key_uses_is_counted_each_time(relay: str, client: aiohttp.ClientSession, known: Known) -> None:
    """Requests, rounds and bytes: as many as for requests that are decided."""

    async def used() -> dict[str, float]:
        async with client.get(f"{relay}/metrics") as response:
            found = re.findall(
                r'^(relay_key_\w+_total)\{key="good"\} ([0-9.e+]+)$', await response.text(), re.MULTILINE
            )
        return {name: float(value) for name, value in found}

    def more(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
        return {name: value - before[name] for name, value in after.items()}

    async with connection(relay) as plain:
        for request in REQUESTS:
            await ask(plain, head(request, f"X-API-Key: {GOOD}"))
        known.hits.clear()
        before = await used()
        for request in REQUESTS:
            await ask(plain, head(request, f"X-API-Key: {GOOD}"))
        assert known.hits == [True] * len(REQUESTS)
        between = await used()
        for request in REQUESTS:
            await ask(plain, head(request, f"X-API-Key: {GOOD}", USUAL))
        after = await used()

    assert more(between, before) == more(after, between)
    assert more(between, before)["relay_key_requests_total"] == len(REQUESTS)
    assert more(between, before)["relay_key_rounds_total"] == 10


async def test_key_that_is_changed(relay: str, known: Known, ring: KeyRing) -> None:
    """Narrowed, disabled or removed, from the next request on."""
    data = head("GET /api/latest/crash", f"X-API-Key: {GOOD}")
    async with connection(relay) as client:
        for key, expected in (
            (replace(GOOD_KEY, games=frozenset({"dice"})), 403),
            (GOOD_KEY, 200),
            (replace(GOOD_KEY, disabled=True), 401),
            (GOOD_KEY, 200),
            (None, 401),
        ):
            ring.change({"good": key})
            assert [status(await ask(client, data)) for _ in range(3)] == [expected] * 3
            assert known.hits[-3:] == [False, expected == 200, expected == 200]


@pytest.mark.parametrize("what", ["key", "secret"])
async def test_key_that_expires(relay: str, known: Known, ring: KeyRing, what: str) -> None:
    """Nothing else changes then."""
    soon = time.time() + 1
    secret = stored(GOOD)
    expiring = (
        replace(GOOD_KEY, expires_at=soon)
        if what == "key"
        else replace(GOOD_KEY, secrets=(replace(secret, expires_at=soon),))
    )
    ring.change({"good": expiring})
    data = head("GET /api/latest/crash", f"X-API-Key: {GOOD}")
    async with connection(relay) as client:
        assert [status(await ask(client, data)) for _ in range(2)] == [200, 200]
        assert known.hits[-1]

        async def is_refused() -> bool:
            return status(await ask(client, data)) == 401

        await until(is_refused)
        assert time.time() >= soon


async def test_key_that_expires_while_its_request_is_decided(
    relay: str, known: Known, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to that request is its last one."""
    expires_at, add = time.time() + 0.3, KnownAnswers.add

    def late(self: KnownAnswers, *arguments: Any, **named: Any) -> None:
        time.sleep(max(0.0, expires_at - time.time()) + 0.001)
        add(self, *arguments, **named)

    monkeypatch.setattr(KnownAnswers, "add", late)
    ring.change({"good": replace(GOOD_KEY, expires_at=expires_at)})
    data = head("GET /api/latest/crash", f"X-API-Key: {GOOD}")
    async with connection(relay) as client:
        assert [status(await ask(client, data)) for _ in range(2)] == [200, 401]


async def test_refusals_are_decided_each_time(relay: str, known: Known) -> None:
    """Those of a credential, a game or a parameter."""
    async with connection(relay) as client:
        for request, secret, expected in (
            ("GET /api/latest/crash", SOME, 403),
            ("GET /api/latest/nothing", GOOD, 404),
            ("GET /api/history?limit=0", GOOD, 400),
            ("GET /api/games", generate("private")[0], 401),
        ):
            data = head(request, f"X-API-Key: {secret}")
            assert [status(await ask(client, data)) for _ in range(2)] == [expected] * 2
    assert not any(known.hits)


async def test_private_key_in_a_browser(relay: str, known: Known) -> None:
    """Its owner is warned each time, also in the log."""
    data = head("GET /api/games", f"X-API-Key: {GOOD}", f"Origin: {ORIGIN}")
    async with connection(relay) as client:
        for _ in range(3):
            assert b"\r\nX-Key-Warning: " in await ask(client, data)
    assert known.hits == [False] * 3


async def test_first_request_of_a_connection_is_decided(relay: str, known: Known) -> None:
    """It makes the connection one of a client with a credential."""
    data = head("GET /api/games", f"X-API-Key: {GOOD}")
    for _ in range(3):
        async with connection(relay) as client:
            assert status(await ask(client, data)) == 200
    assert known.hits == [False] * 3


async def test_remembered_answers_are_bounded(relay: str, known: Known) -> None:
    """However many different requests come."""
    async with connection(relay) as client:
        for number in range(1500):
            assert status(await ask(client, head("GET /api/games", f"X-API-Key: {GOOD}", f"X-N: {number}"))) == 200
        assert known.store is not None
        assert 0 < len(known.store) <= 1024
        await ask(client, head("GET /api/games", f"X-API-Key: {GOOD}", f"X-N: {'n' * 1000}"))
        known.hits.clear()
        await ask(client, head("GET /api/games", f"X-API-Key: {GOOD}", f"X-N: {'n' * 1000}"))
        assert known.hits == [False]
