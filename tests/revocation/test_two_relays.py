"""A key that is taken back ends its open links on every relay, over every protocol, and no other link."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

import aiohttp
import pytest
from grpc import StatusCode, aio

from auth.key import Key, StoredSecret
from auth.key_secret import generate, stored
from auth.revocations import Revocation
from relay.admission.gate import Admission
from rounds import datastream_pb2 as pb
from tests.relay.conftest import make_round, metric_becomes, token_of
from tests.resume.log_writer import LogWriter
from tests.revocation.conftest import (
    END_S,
    OTHER_SECRET,
    PAGE,
    PAGE_SECRET,
    PROTOCOLS,
    REVOKED,
    SECRET,
    OpenLink,
    StartRelays,
    id_of,
    links_of_all_protocols,
    sse,
    websocket,
    websocket_end,
)
from tests.rpc.caller import Caller, read_to_end
from tests.waiting import until

pytestmark = pytest.mark.service

WITHIN_S: Final = 5.0
"""From the change of a key to the last end, on a busy machine. The promise is a second."""

Change = Callable[[Key], Key | None]


async def ends(links: list[OpenLink]) -> list[tuple[str, tuple[Any, ...]]]:
    return [(link.protocol, await link.end()) for link in links]


async def end_of(ws: aiohttp.ClientWebSocketResponse) -> tuple[Any, ...]:
    async with asyncio.timeout(END_S):
        return await websocket_end(ws)


WITHDRAWN: Final[dict[str, Change]] = {
    "disabled": lambda key: replace(key, disabled=True),
    "expired": lambda key: replace(key, expires_at=time.time()),
    "deleted": lambda _key: None,
    "rotated": lambda key: replace(key, secrets=(stored(generate("private")[0]),)),
}


@pytest.mark.parametrize("change", WITHDRAWN.values(), ids=WITHDRAWN)
async def test_key_that_is_not_valid_any_more_ends_its_links(
    start_relays: StartRelays, key: Key, change: Change
) -> None:
    """Each protocol says so in its own way, within a second; links of another key stay, and get the next round."""
    async with (
        start_relays(2) as relays,
        links_of_all_protocols(relays, SECRET) as links,
        links_of_all_protocols(relays, OTHER_SECRET) as others,
    ):
        changed = change(key)
        began = time.monotonic()
        if changed is None:
            relays.remove(key.id)
        else:
            relays.change(changed)

        assert await ends(links) == [(link.protocol, REVOKED[link.protocol]) for link in links]
        assert time.monotonic() - began < WITHIN_S
        for relay in relays:
            await relay.opened(len(PROTOCOLS))
        assert all(link.is_open for link in others)


async def test_narrowed_key_ends_links_that_follow_more(start_relays: StartRelays, key: Key) -> None:
    """A link of a game that is still covered stays. The next attempt for the other game gets 403."""
    async with (
        start_relays(2) as relays,
        links_of_all_protocols(relays, SECRET, "crash") as lost,
        links_of_all_protocols(relays, SECRET, "dice") as kept,
    ):
        relays.change(replace(key, games=frozenset({"dice", "plinko"})))

        expected = REVOKED | {"sse": ("complete", 403)}
        assert await ends(lost) == [(link.protocol, expected[link.protocol]) for link in lost]
        for relay in relays:
            await relay.opened(len(PROTOCOLS))
        assert all(link.is_open for link in kept)


async def test_widened_key_and_lower_limits_end_no_link(start_relays: StartRelays, key: Key) -> None:
    """The links of a key that allows more, or less in a minute, stay as they are."""
    narrow = replace(key, games=frozenset({"crash"}))
    async with start_relays(1) as relays:
        relays.change(narrow)
        async with links_of_all_protocols(relays, SECRET) as links:
            relays.change(replace(narrow, games=frozenset({"crash", "dice"})))
            relays.change(replace(narrow, games=None, name="renamed", limits=replace(key.limits, links=1)))
            # Judged in order: when the other key's link has ended, these were judged before it.
            async with websocket(next(iter(relays)), OTHER_SECRET) as last:
                relays.remove("other")
                await last.end()

            assert all(link.is_open for link in links)


async def test_narrowed_key_narrows_what_an_open_link_may_subscribe_to(start_relays: StartRelays, key: Key) -> None:
    """A WebSocket that follows a covered game stays, and is refused the others; a widened key allows them at once."""
    async with start_relays(1) as relays:
        [relay] = relays
        headers = {"X-API-Key": SECRET}
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{relay.url}/ws/dice", headers=headers) as ws:

            async def subscribe(game: str) -> Any:
                await ws.send_json({"action": "subscribe", "games": [game]})
                return await ws.receive(20)

            relays.change(replace(key, games=frozenset({"dice", "plinko"})))
            async with websocket(relay, OTHER_SECRET) as last:
                relays.remove("other")
                await last.end()
            assert (await subscribe("plinko")).json() == {"event": "subscribed", "games": ["dice", "plinko"]}
            refused = await subscribe("crash")

    assert (refused.type, refused.data) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_narrowed_key_ends_a_link_that_subscribed_to_more(start_relays: StartRelays, key: Key) -> None:
    """What it follows now counts, not what it was opened for; also while it is replayed."""
    async with start_relays(1) as relays:
        [relay] = relays
        headers = {"X-API-Key": SECRET}
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{relay.url}/ws/dice", headers=headers) as ws:
            await ws.send_json({"action": "subscribe", "games": ["crash"]})
            assert (await ws.receive_json(timeout=20))["games"] == ["crash", "dice"]
            await ws.send_json({"action": "unsubscribe", "games": ["dice"]})
            assert (await ws.receive_json(timeout=20))["games"] == ["crash"]
            relays.change(replace(key, games=frozenset({"dice"})))

            assert await end_of(ws) == REVOKED["websocket"]


async def test_origin_that_is_removed_ends_the_links_of_its_pages(start_relays: StartRelays, page_key: Key) -> None:
    """Links from the other origins stay."""
    elsewhere = "https://other.example.com"
    both = replace(page_key, allowed_origins=frozenset({PAGE, elsewhere}))
    async with start_relays(1) as relays, AsyncExitStack() as stack:
        [relay] = relays
        relays.change(both)
        links = [
            await stack.enter_async_context(open_link(relay, PAGE_SECRET, headers={"Origin": origin}))
            for origin in (PAGE, elsewhere)
            for open_link in (websocket, sse)
        ]
        relays.change(replace(both, allowed_origins=frozenset({elsewhere})))

        assert await ends(links[:2]) == [("websocket", REVOKED["websocket"]), ("sse", ("complete", 403))]
        await relay.opened(2)
        assert all(link.is_open for link in links[2:])


async def test_networks_that_exclude_a_client_end_its_links(start_relays: StartRelays, key: Key) -> None:
    """Of all protocols; a network with the client's address ends none."""
    from ipaddress import ip_network

    async with start_relays(1) as relays, links_of_all_protocols(relays, SECRET) as links:
        relays.change(replace(key, addresses=(ip_network("127.0.0.0/8"),)))
        async with websocket(next(iter(relays)), OTHER_SECRET) as last:
            relays.remove("other")
            await last.end()
        assert all(link.is_open for link in links)
        relays.change(replace(key, addresses=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))))

        for protocol, end in await ends(links):
            assert end[0] == REVOKED[protocol][0]


async def test_old_secret_ends_its_links_when_the_overlap_is_over(start_relays: StartRelays, key: Key) -> None:
    """Links of the new secret stay; those of a token that was made for the old one end too."""
    new_secret = generate("private")[0]
    async with start_relays(2) as relays, AsyncExitStack() as stack:
        old = await stack.enter_async_context(links_of_all_protocols(relays, SECRET))
        overlap = StoredSecret(stored(SECRET).digest, expires_at=time.time() + 1)
        began = time.monotonic()
        relays.change(replace(key, secrets=(stored(new_secret), overlap)))
        new = await stack.enter_async_context(links_of_all_protocols(relays, new_secret))

        assert await ends(old) == [(link.protocol, REVOKED[link.protocol]) for link in old]
        assert 0.9 < time.monotonic() - began < 1 + WITHIN_S
        for relay in relays:
            await relay.opened(len(PROTOCOLS))
        assert all(link.is_open for link in new)


async def test_key_ends_its_links_at_the_moment_it_expires(start_relays: StartRelays, key: Key) -> None:
    """Nobody changes it at that moment: the relay looks at the clock."""
    expires_at = time.time() + 1
    async with start_relays(2) as relays, AsyncExitStack() as stack:
        before = await stack.enter_async_context(links_of_all_protocols(relays, SECRET))
        relays.change(replace(key, expires_at=expires_at))
        after = await stack.enter_async_context(links_of_all_protocols(relays, SECRET))

        links = before + after
        assert await ends(links) == [(link.protocol, REVOKED[link.protocol]) for link in links]
        assert 0 <= time.time() - expires_at < WITHIN_S


async def test_revoked_token_ends_its_links_and_opens_no_more(start_relays: StartRelays) -> None:
    """Other tokens of the same key, and the key itself, stay valid."""
    async with start_relays(2) as relays, aiohttp.ClientSession() as http, AsyncExitStack() as stack:
        first, second = relays
        token, other = [await token_of(http, first.url, SECRET) for _ in range(2)]
        signed = [first, second]
        sockets = [
            await stack.enter_async_context(http.ws_connect(f"{relay.url}/ws/crash", protocols=[each]))
            for relay in signed
            for each in (token, token, other)
        ]
        by_key = await stack.enter_async_context(sse(first, SECRET))
        relays.revoke(Revocation.of_token(id_of(token)))

        assert [await end_of(ws) for ws in sockets if ws.protocol == token] == [REVOKED["websocket"]] * 4
        await first.opened(2)
        await second.opened(1)
        assert by_key.is_open
        for relay in relays:
            async with http.get(f"{relay.url}/sse/crash", params={"token": token}) as refused:
                assert refused.status == 401
                assert (await refused.json())["code"] == "invalid_token"
            async with http.get(f"{relay.url}/sse/crash", params={"token": other}) as accepted:
                assert accepted.status == 200


@pytest.mark.parametrize(
    ("change", "sse_status"), [({"disabled": True}, 401), ({"games": frozenset({"dice"})}, 403)], ids=["whole", "game"]
)
async def test_link_whose_key_is_revoked_during_its_handshake_ends(
    start_relays: StartRelays, key: Key, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], sse_status: int
) -> None:
    """Between the check of its credential and its registration, in all protocols; the key, or the game asked for."""
    from relay.links.link_registry import LinkRegistry

    async with start_relays(1) as relays:
        [relay] = relays
        take_permit = LinkRegistry.take_permit

        async def slow(self: LinkRegistry, *arguments: Any) -> Any:
            permit = await take_permit(self, *arguments)
            relays.change(replace(key, **change))
            return permit

        expected = REVOKED | {"sse": ("complete", sse_status)}
        for open_link in PROTOCOLS.values():
            relays.change(key)
            with monkeypatch.context() as patch:
                patch.setattr(LinkRegistry, "take_permit", slow)
                async with open_link(relay, SECRET) as link:
                    assert await link.end() == expected[link.protocol]
        await relay.opened(0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"disabled": True}, StatusCode.UNAUTHENTICATED),
        ({"expires_at": 1.0}, StatusCode.UNAUTHENTICATED),
        ({"games": frozenset({"dice"})}, StatusCode.PERMISSION_DENIED),
    ],
    ids=["whole", "expired", "game"],
)
async def test_call_whose_key_is_revoked_before_its_message_gets_no_rounds(
    start_relays: StartRelays, key: Key, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], code: StatusCode
) -> None:
    """A client may send the headers of many calls, and their messages when its key is no longer valid."""
    judged = asyncio.Event()
    grant = Admission.grant

    def noted(self: Admission, *arguments: Any, **named: Any) -> Any:
        judged.set()
        return grant(self, *arguments, **named)

    monkeypatch.setattr(Admission, "grant", noted)

    async with start_relays(1) as relays:
        [relay] = relays
        message = pb.GetHistoryRequest(game_slug="crash").SerializeToString()

        async def late(*begin: bytes) -> AsyncIterator[bytes]:
            for piece in begin:
                yield piece
            await judged.wait()
            relays.change(replace(key, **change))
            yield message[len(b"".join(begin)) :]

        async with aio.insecure_channel(f"127.0.0.1:{relay.grpc_port}") as channel:
            call: Any = channel.stream_unary("/datastream.DataStream/GetHistory")
            with pytest.raises(aio.AioRpcError) as refused:
                await call(late(), metadata=(("x-api-key", SECRET),), timeout=END_S)
        assert refused.value.code() is code

        relays.change(key)
        judged.clear()
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{relay.url}/api/grpc/datastream.DataStream/GetHistory",
                headers={"X-API-Key": SECRET, "Content-Type": "application/proto"},
                data=late(message[:1]),  # aiohttp sends headers with the first piece
            ) as response,
        ):
            assert (await response.json())["code"] == code.name.lower()


async def test_drain_and_revocation_at_once_end_each_link_once(start_relays: StartRelays, key: Key) -> None:
    """Each link has one end: the first. The drain does not wait for links that were revoked."""
    async with AsyncExitStack() as stack:
        async with start_relays(1, drain={"grace_s": 10, "margin_s": 9}) as relays:
            [relay] = relays
            links, others = [
                [await stack.enter_async_context(websocket(relay, secret)) for _ in range(20)]
                for secret in (SECRET, OTHER_SECRET)
            ]

            async def revoke() -> None:
                await until(lambda: any(not link.is_open for link in links))
                relays.change(replace(key, disabled=True))

            revoking, began = asyncio.create_task(revoke()), time.monotonic()
        await revoking
        assert time.monotonic() - began < 9
        codes = [(await link.end())[0] for link in links]
        assert set(codes) == {1012, 4001}
        assert {(await link.end())[0] for link in others} == {1012}


async def test_replay_of_a_revoked_key_ends(start_relays: StartRelays, key: Key, log: LogWriter) -> None:
    """A bulk replay, a replay at a pace, and one that waits for a client that does not read."""
    await log.store_many(make_round("crash", number) for number in range(1, 1500))
    async with start_relays(1) as relays, aiohttp.ClientSession() as http:
        [relay] = relays
        headers = {"X-API-Key": SECRET}
        paced = {"from": "2020-01-01T00:00:00Z", "speed": "0.1"}
        async with (
            Caller(f"127.0.0.1:{relay.grpc_port}", SECRET) as caller,
            http.ws_connect(f"{relay.url}/ws/crash", params=paced, headers=headers) as ws,
            http.get(f"{relay.url}/sse/crash", params=paced, headers=headers) as events,
        ):
            bulk = caller.call(pb.ReplayRequest())
            assert len((await bulk.read()).rounds) > 0
            relays.change(replace(key, disabled=True))
            _, status = await read_to_end(bulk)

            assert await end_of(ws) == REVOKED["websocket"]
            await events.content.read()
        assert status is None or status.code is StatusCode.PERMISSION_DENIED
        await relay.opened(0)


async def test_bulk_replay_of_all_games_is_judged_by_all_of_its_key(
    start_relays: StartRelays, key: Key, log: LogWriter
) -> None:
    """It names no games. When its key covers fewer than at its start, it ends."""
    await log.store_many(make_round("crash", number) for number in range(1, 20_000))
    async with start_relays(1) as relays, Caller(f"127.0.0.1:{next(iter(relays)).grpc_port}", SECRET) as caller:
        call = caller.call(pb.ReplayRequest())
        await call.read()
        relays.change(replace(key, games=frozenset({"dice"})))
        _, status = await read_to_end(call)

    assert status is not None
    assert status.code is StatusCode.PERMISSION_DENIED
    assert status.trailers == {}


async def test_client_that_does_not_read_is_cut_within_a_second(
    start_relays: StartRelays, key: Key, log: LogWriter
) -> None:
    """It would otherwise keep its connection, and what is queued for it, for the usual time to read a disconnect."""
    async with start_relays(1, links={"linger_s": 30, "unsent_bytes": 64 << 20}) as relays:
        [relay] = relays
        host, port = relay.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /sse/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\n\r\n" % SECRET.encode())
            await relay.opened(1)
            extras = '{"point":"2.50","pad":"%s"}' % ("x" * 500_000)
            await log.store_many(make_round("crash", number, extras=extras) for number in range(1, 40))
            async with aiohttp.ClientSession() as http:
                await metric_becomes(http, relay.url, "relay_deliveries_total", 39)
            began = time.monotonic()
            relays.change(replace(key, disabled=True))

            await relay.opened(0)
            assert 0.5 < time.monotonic() - began < WITHIN_S
