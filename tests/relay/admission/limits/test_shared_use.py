"""Relays count a key's use together, over real NATS, and each alone while NATS is away."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest

from auth.grants import Grant
from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.tokens import TokenSigner
from relay.admission.limits import shared_use
from relay.admission.limits.limits import ClientLimits
from relay.admission.limits.shared_use import SOON_S, Report, SharedUse
from relay.config.sections import LimitSettings
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.relay.conftest import StartRelay, metric_becomes
from tests.relay.event_stream import stream
from tests.waiting import until

RELAYS = "relay_limits_relays"


def ring_of(**limits: Any) -> tuple[KeyRing, dict[str, str]]:
    """Make the keys of relays, and the header of one that has limits."""
    secret, _ = generate("private")
    return KeyRing([Key("k", "private", secrets=(stored(secret),), limits=Limits(**limits))]), {"X-API-Key": secret}


async def ask(client: aiohttp.ClientSession, url: str, key: dict[str, str]) -> tuple[int, int]:
    """Get a token; return the status, and how many requests remain. It needs no NATS."""
    async with client.post(f"{url}/api/auth/token", headers=key) as response:
        return response.status, int(response.headers["X-Ratelimit-Remaining"])


@pytest.mark.service
async def test_requests_count_on_all_relays(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """What one relay admitted, another knows a moment later; both together exceed the limit by little."""
    ring, key = ring_of(requests_per_min=600)
    async with start_relay(keys=ring) as one, start_relay(keys=ring) as other:
        for url in (one, other):
            await metric_becomes(client, url, RELAYS, 2)
        for _ in range(360):
            assert (await ask(client, one, key))[0] == 200

        async def knows() -> bool:
            return (await ask(client, other, key))[1] <= 270

        await until(knows, within_s=5)
        admitted, began = 0, time.monotonic()
        for number in range(600):
            admitted += (await ask(client, (one, other)[number % 2], key))[0] == 200
            await asyncio.sleep(SOON_S / 50)  # what is sent in that time is not reported yet
        regained = (time.monotonic() - began) * 600 / 60
        assert admitted <= 420 + regained, (
            "240 are left, and some that are not reported yet; alone each would admit 510"
        )


@pytest.mark.service
async def test_links_count_on_all_relays(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """Open links of a key on another relay are known; those of a relay that shuts down are not counted any more."""
    ring, key = ring_of(links=2)
    async with AsyncExitStack() as opened, start_relay(keys=ring) as one:
        other_runs = AsyncExitStack()
        other = await other_runs.enter_async_context(start_relay(keys=ring))
        await metric_becomes(client, one, RELAYS, 2)
        await metric_becomes(client, other, RELAYS, 2)
        for _ in range(2):
            await opened.enter_async_context(stream(client, f"{other}/sse/crash", headers=key))

        async def is_open(wanted: bool) -> bool:
            async with client.get(f"{one}/sse/crash", headers=key) as response:
                await response.content.readuntil(b"\n")
                return bool(await response.content.read(1)) is wanted

        await until(lambda: is_open(False), within_s=5)
        await other_runs.aclose()
        await until(lambda: is_open(True), within_s=5)


@pytest.mark.service
async def test_without_nats_each_relay_applies_the_limit_alone(
    nats: NatsServer, start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """And they count together again when it is back."""
    ring, key = ring_of(requests_per_min=40)
    async with start_relay(keys=ring) as one, start_relay(keys=ring) as other:
        for url in (one, other):
            await metric_becomes(client, url, RELAYS, 2)
        await nats.kill()
        for url in (one, other):
            await metric_becomes(client, url, RELAYS, 1)
            began, admitted = time.monotonic(), 0
            while (await ask(client, url, key))[0] == 200:
                admitted += 1
            regained = (time.monotonic() - began) * 40 / 60
            assert 40 <= admitted <= 40 + regained + 0.01  # rates round by so much
        await nats.start()
        for url in (one, other):
            await metric_becomes(client, url, RELAYS, 2)


def shared_with(**settings: Any) -> tuple[ClientLimits, SharedUse]:
    limits = ClientLimits(LimitSettings(**settings), clock=lambda: 0.0)
    return limits, SharedUse(limits, LogSettings())


GRANT = Grant("k", "private", None, frozenset())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"relay":1}',
        b"[" * 100_000,
        b'{"relay":"x","used":{"requests":{"k":-1}}}',
        b'{"relay":"x","used":{"new_links":{"k":100},"nonsense":{"k":1}}}',
        b'{"relay":"x","links":{"k":-5}}',
    ],
)
async def test_report_that_is_malformed_changes_nothing(data: bytes) -> None:
    """Another program may publish there."""
    limits, shared = shared_with(private_requests_per_min=2, private_links=1)
    shared.received(data)

    quota = limits.request(GRANT, "")
    assert quota is not None
    assert quota.remaining == 1
    limits.open(GRANT, "")


async def test_what_others_report_is_bounded() -> None:
    """A key is over its limit for two minutes at most, and relays and keys without end are not remembered."""
    limits, shared = shared_with()
    for number in range(2000):
        report = Report(f"r{number}", used={"requests": {"k": 1e12}}, links={f"k{number}": 1})
        shared.received(msgspec.json.encode(report))

    left = limits.requests_left(GRANT, "")
    assert left is not None
    assert left.reset_s <= 120
    assert limits.of_links.elsewhere("k0") == 1
    assert limits.of_links.elsewhere("k1999") == 0


async def test_keys_that_others_report_are_bounded_over_all_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many relays report them, and their names are those of keys; what a relay takes back makes room."""
    monkeypatch.setattr(shared_use, "_MOST_ACCOUNTS", 5)
    limits, shared = shared_with()

    def report(relay: str, *keys: str, whole: bool = False) -> None:
        shared.received(msgspec.json.encode(Report(relay, links=dict.fromkeys(keys, 1), whole=whole)))

    report("r1", "a", "b", "c", "x" * 129)
    report("r2", "d", "e", "f")
    report("r" * 129, "a")
    elsewhere = limits.of_links.elsewhere
    assert [elsewhere(name) for name in ("a", "e", "f", "x" * 129)] == [1, 1, 0, 0]
    report("r1", whole=True)
    report("r2", "f")
    assert [elsewhere(name) for name in ("a", "e", "f")] == [0, 1, 1]


async def test_report_of_all_links_replaces_earlier_ones() -> None:
    """So that a lost message is repaired."""
    limits, shared = shared_with()
    for report in (Report("r", links={"a": 3, "b": 1}), Report("s", links={"a": 1}), Report("r", links={"a": 2})):
        shared.received(msgspec.json.encode(report))
    assert [limits.of_links.elsewhere(account) for account in "ab"] == [3, 1]

    shared.received(msgspec.json.encode(Report("r", links={"b": 4}, whole=True)))
    assert [limits.of_links.elsewhere(account) for account in "ab"] == [1, 4]


@pytest.mark.service
async def test_tokens_of_a_key_count_with_it(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """A link that a token opened is one of its key."""
    ring, key = ring_of(links=1)
    signer = TokenSigner.ephemeral()
    async with start_relay(keys=ring, signer=signer) as url, stream(client, f"{url}/sse/crash", headers=key):
        async with client.post(f"{url}/api/auth/token", headers=key) as response:
            token = (await response.json())["token"]
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            await client.ws_connect(f"{url}/ws/crash?token={token}")
