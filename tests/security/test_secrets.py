"""No key, token or secret is in logs, errors, metrics, the process list or stored data: all of a run is searched.

The steps use each secret as it is meant and in every way that it is not, and cause errors while they do.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from rounds import datastream_pb2 as pb
from tests.cli.command import run as run_command
from tests.cli.command import started
from tests.relay.conftest import wait_ready
from tests.relay.http.test_http import secret_positions
from tests.relay.raw_http import connection
from tests.rpc.caller import Caller, read
from tests.security.full_run import FullRun, full_run
from tests.security.key_steps import administer, hand_out_keys, report, sign_in, take_back, use_up_limits
from tests.security.known_secrets import KnownSecrets
from tests.waiting import until

pytestmark = pytest.mark.service

Step = Callable[[FullRun], Awaitable[None]]
ORIGIN: Final = {"Origin": "https://example.com"}


@pytest.mark.parametrize("form", ["as it is", "base64", "url", "hex", "percent", "part"])
def test_a_secret_is_found_in_each_form(form: str) -> None:
    """A search that finds nothing would prove nothing."""
    known = KnownSecrets()
    secret = known.add("the key", f"sk_live_{'7f3a' * 16}")
    leaked = {
        "as it is": secret,
        "base64": base64.b64encode(f"user:{secret}".encode()).decode(),
        "url": base64.urlsafe_b64encode(f'{{"key":"{secret}"}}'.encode()).decode(),
        "hex": secret.encode().hex(),
        "percent": secret.replace("_", "%5F"),
        "part": secret[-30:],
    }[form]

    assert known.found_in("a log", f"before {leaked} after") != []
    assert known.found_in("a log", f"before {secret[:12]}… after") == []


async def use_keys(run: FullRun) -> None:
    """Every protocol, with keys and tokens that are accepted."""
    relay, private = run.relay, {"X-API-Key": run.relay.key}
    token = await run.token(relay.key, name="the token of the private key")
    page_token = await run.token(run.public_key, name="the token of the public key", headers=ORIGIN)
    async with aiohttp.ClientSession(relay.url) as http:
        for path in ("/api/games", "/api/latest/crash", "/api/history/crash?limit=3"):
            for headers in (private, {"Authorization": f"Bearer {relay.key}"}, {"X-API-Key": run.public_key, **ORIGIN}):
                async with http.get(path, headers=headers) as answer:
                    await keep(run, path, answer)
                    assert answer.status == 200
        for url, headers in (
            ("/sse/crash?last=1", private),
            (f"/sse/crash?last=1&api_key={relay.key}", {}),
            (f"/sse/crash?last=1&token={token}", {}),
            (f"/sse/crash?last=1&hello=1&token={page_token}", ORIGIN),
        ):
            async with http.get(url, headers=headers) as stream:
                run.received.append(("an event stream", str(stream.headers).encode()))
                await lines(run, stream, until_one=b"data:")
        for offered, url, headers in (
            ([token], "/ws/crash?last=1&hello=1", {}),
            (["datastream.v1", page_token], "/ws/crash?last=1", ORIGIN),
            ([], "/ws?games=crash,dice&last=1", private),
            ([], f"/ws/crash?last=1&token={token}", {}),
        ):
            async with http.ws_connect(url, headers=headers, protocols=offered) as link:
                await link.send_str(json.dumps({"action": "subscribe", "games": [relay.key, token]}))
                await link.send_str(relay.key)
                async for message in link:
                    run.received.append(("a WebSocket", str(message.data).encode()))
                run.received.append(("a close frame", str(link.close_code).encode()))


async def use_grpc(run: FullRun) -> None:
    """gRPC and its proxy, with credentials that are accepted and others."""
    relay = run.relay
    wrong = run.secrets.add("a wrong key for gRPC", f"sk_live_{'6d1e' * 16}")
    token = await run.token(relay.key, name="a token for gRPC")
    for key in (relay.key, wrong, f"{relay.key}x", token):
        async with Caller(f"127.0.0.1:{relay.grpc_port}", key) as caller:
            if key == relay.key:
                await caller.ask(pb.GetLatestRequest(game_slug="crash"))
                async with caller.stream(pb.StreamByGameRequest(game_slug="crash")) as call:
                    run.received.append(("gRPC metadata", str(await call.initial_metadata()).encode()))
                    await read(call, 1)
            for request in (pb.GetLatestRequest(game_slug=key), pb.StreamByGameRequest(game_slug="crash", after=key)):
                failure = await caller.failure(request)
                run.received.append(("a gRPC status", str(failure).encode()))
    async with aiohttp.ClientSession(relay.url) as http:
        for key in (relay.key, wrong, token):
            for method in ("GetLatest", "StreamByGame", key):
                async with http.post(
                    f"/api/grpc/datastream.DataStream/{method}",
                    headers={"X-API-Key": key, "Content-Type": "application/json"},
                    json={"gameSlug": key},
                ) as answer:
                    await keep(run, "the proxy", answer)


async def misuse_keys(run: FullRun) -> None:
    """Every secret in every position of a request, most of them wrong."""
    relay = run.relay
    token = await run.token(relay.key, name="a token in wrong places")
    header, payload, signature = token.split(".")
    wrong = [
        relay.key,
        run.public_key,
        token,
        run.secrets.add("an altered token", f"{header}.{payload}.{signature[::-1]}"),
        run.secrets.add("a wrong key", f"sk_live_{'5c0b' * 16}"),
        relay.token_secrets.partition(":")[2],
        run.partner_key,
        run.admin_secret,
        run.identity("a JWT in wrong places"),
        *run.passwords.values(),
    ]
    for secret in wrong:
        for path in ("/sse/crash", "/ws/crash", "/api/auth/token", "/nope", f"/sse/{secret}", f"/api/latest/{secret}"):
            for request in secret_positions(path, secret):
                async with connection(relay.url) as link:
                    await link.send("\r\n".join([*request, "Host: x", "", ""]).encode())
                    with contextlib.suppress(asyncio.IncompleteReadError):
                        head = await link.until(b"\r\n\r\n")
                        # The given clients fail unless the subprotocol that they offer is selected.
                        if not head.startswith(b"HTTP/1.1 101") and b'"token"' not in head:
                            run.received.append((f"the answer of {path}", head + await body_of(head, link.reader)))


async def body_of(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read the body of an answer; nothing of one that is a stream, or has a token for its asker."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    return b"" if b'"token"' in body else body


async def lose_nats(run: FullRun) -> None:
    """NATS is killed while clients ask, and comes back."""
    await run.nats.kill()
    headers = {"X-API-Key": run.relay.key}
    async with aiohttp.ClientSession(run.relay.url) as http:
        for path in ("/api/latest/crash", "/api/history/crash", "/readyz", f"/sse/crash?api_key={run.relay.key}"):
            async with http.get(path, headers=headers) as answer:
                await keep(run, path, answer, whole=False)
    await run.nats.start()
    await wait_ready(run.relay.url)


async def look_around(run: FullRun) -> None:
    """What a monitor, a browser and a user of the machine see."""
    async with aiohttp.ClientSession(run.relay.url) as http:
        for path in ("/metrics", "/openapi.json", "/docs", "/healthz", "/readyz"):
            async with http.get(path) as answer:
                await keep(run, path, answer)
    with started("tail", "crash", BASE_URL=run.relay.url, API_KEY=run.relay.key, RELAY_LOG_LEVEL="debug") as client:
        found = await asyncio.to_thread(client.wait_for, "crash")
        run.received += [("a client's output", line.string.encode()) for line in found]
        run.received += run.command_lines(client.pid)
    assert any(b"nats-server" in line for _, line in run.received)


async def print_settings(run: FullRun) -> None:
    """Settings that are shown, and commands that cannot do their work."""
    dsn = run.secrets.add("the password of the database", f"d{'9a4e' * 12}")
    settings = run.settings_of("relay") | {
        "RELAY_NATS_URL": run.nats.url,
        "RELAY_AUTH_TOKEN_SECRETS": run.relay.token_secrets,
        "RELAY_AUTH_KEYS": f"k={run.relay.stored_key}",
    }
    database = {
        "RELAY_BACKEND_NAME": "postgres-notify",
        "RELAY_BACKEND_DSN": f"postgresql://relay:{dsn}@127.0.0.1:1/games",
        "RELAY_BACKEND_TABLE": "rounds",
    }
    wrong_key = {"RELAY_AUTH_KEYS": f"k={run.relay.key}"}
    wrong_user = {"RELAY_NATS_PASSWORD": run.passwords["INGEST_PASSWORD"]}
    commands: tuple[tuple[list[str], dict[str, str]], ...] = (
        (["config"], settings),
        (["serve"], settings | wrong_key),
        (["serve"], settings | wrong_user),
        (["backend", "status"], settings | database),
        (["backend", "check"], settings | database),
        (["history", "crash"], {"BASE_URL": run.relay.url, "API_KEY": f"{run.relay.key}"}),
        (
            ["history", "crash"],
            {"BASE_URL": run.relay.url, "API_KEY": run.secrets.add("a mistyped key", "sk_live_" * 8)},
        ),
    )
    outcomes = await asyncio.gather(*(asyncio.to_thread(run_command, *words, **of) for words, of in commands))
    for (words, _), outcome in zip(commands, outcomes, strict=True):
        run.received.append((f"stream-relay {' '.join(words)}", f"{outcome.out}\n{outcome.err}".encode()))


STEPS: Final[tuple[Step, ...]] = (
    *(hand_out_keys, use_keys, use_grpc, take_back, sign_in, use_up_limits),
    *(misuse_keys, administer, look_around, lose_nats, use_keys, print_settings, report),
)


async def test_no_secret_leaves_a_full_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, tokens, token secrets and passwords, raw, in part and encoded, in all that the run has left."""
    async with full_run(tmp_path, monkeypatch) as run:
        await until_rounds(run)
        for step in STEPS:
            await step(run)
    printed = run.printed()

    found = run.secrets.found_in_files(tmp_path, but=frozenset(run.inputs))
    for where, content in [*run.received, *((name, text.encode()) for name, text in printed)]:
        found += run.secrets.found_in(where, content)
    assert found == [], "\n".join(found)
    assert "link_opened" in printed[0][1]
    assert "round_rejected" in printed[1][1]
    assert_streams_are_in(tmp_path)
    assert run.secrets.looked_at > 100_000


def assert_streams_are_in(folder: Path) -> None:
    """Assert that streams and buckets are in files that were searched, not compressed."""
    stored = b"".join(path.read_bytes() for path in folder.rglob("*.blk"))
    for subject in (b"audit.change.", b"audit.refused", b"usage.", b"$KV.keys.key.partner"):
        assert subject in stored


async def until_rounds(run: FullRun) -> None:
    """Wait until the relay has a round to serve."""
    async with aiohttp.ClientSession(run.relay.url) as http:

        async def has_round() -> bool:
            async with http.get("/api/latest/crash", headers={"X-API-Key": run.relay.key}) as answer:
                return answer.status == 200

        await until(has_round)


async def keep(run: FullRun, where: str, answer: aiohttp.ClientResponse, *, whole: bool = True) -> None:
    """Keep an answer for the search: status, headers and body, or the first bytes of a stream."""
    body = await answer.read() if whole else await answer.content.read(4096)
    run.received.append((where, f"{answer.status} {answer.headers}".encode() + body))


async def lines(run: FullRun, stream: aiohttp.ClientResponse, *, until_one: bytes) -> None:
    async with asyncio.timeout(20):
        async for line in stream.content:
            run.received.append(("an event stream", line))
            if line.startswith(until_one):
                return
