"""What the other users in NATS may do, and what a running relay and a running ingest make of each other's tricks."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from structlog.testing import capture_logs

from auth.key_secret import DEMO_KEY
from roundlog.client import connection
from roundlog.client.connection import connect
from roundlog.log_errors import LogDenied
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from roundlog.stream import read_log
from tests.backends.file.replaying import round_at
from tests.resume.conftest import running
from tests.security.accounts import ACCOUNTS, accounts, attacker, log_of, server_of
from tests.security.guarded import Guarded, guarded_by, until_taken

pytestmark = pytest.mark.service

PAGE: Final = b'{"seq":1,"batch":100,"next_by_subj":"rounds.*"}'


@pytest.mark.parametrize("credentials", [{}, {"user": "relay", "password": "wrong"}, {"user": "root", "password": ""}])
async def test_nobody_enters_without_a_password(guarded: Guarded, credentials: dict[str, str]) -> None:
    """No user stands for connections without one."""
    client = Client()

    async def ignore(_: Exception) -> None: ...

    with pytest.raises((NatsError, OSError)):
        await client.connect(guarded.server.url, allow_reconnect=False, error_cb=ignore, **credentials)  # type: ignore[arg-type]
    await client.close()


def test_no_password_is_in_the_file() -> None:
    """They come from the environment."""
    words = ACCOUNTS.replace(",", " ").split()
    found = [words[at + 1] for at, word in enumerate(words) if word == "password:"]

    assert found
    assert all(word.startswith("$") for word in found)


async def test_ingest_stores_rounds_and_changes_nothing_else(guarded: Guarded) -> None:
    """It may not publish live rounds, delete or edit streams, make others, or read answers of others."""
    before = await guarded.state()
    config = {"name": "X", "subjects": ["x"], "republish": {"src": ">", "dest": "live.rounds.crash"}}
    async with attacker(guarded.server, "ingest") as ingest:
        for subject in (
            "live.rounds.crash",
            "_INBOX.operator.1",
            "$JS.API.STREAM.DELETE.ROUNDS",
            "$KV.keys.a",
            "rounds",
        ):
            await ingest.send(subject, b"{}")
        for call, body in {
            "STREAM.UPDATE.ROUNDS": {"name": "ROUNDS", "subjects": ["rounds.*"], "max_msgs": 1},
            "STREAM.PURGE.ROUNDS": {},
            "STREAM.MSG.DELETE.ROUNDS": {"seq": 1},
            "STREAM.CREATE.X": config,
            "CONSUMER.CREATE.ROUNDS.c1": {"stream_name": "ROUNDS", "config": {"deliver_subject": "live.rounds.crash"}},
        }.items():
            assert await ingest.answer(f"$JS.API.{call}", json.dumps(body).encode()) is None, call
        refused = len(ingest.refused)
        await ingest.send("rejects.file", b"{}", Nats_Trace_Dest="live.rounds.crash")
        for subject in (">", "_INBOX.>", "_INBOX.operator.>", "rounds.*", "live.rounds.*"):
            await ingest.listen(subject)
        # The name in the body has to be that of the subject, and the stream exists.
        for name in ("X", "ROUNDS"):
            answer = await ingest.answer("$JS.API.STREAM.CREATE.ROUNDS", json.dumps({**config, "name": name}).encode())
            assert answer is not None
            assert "error" in json.loads(answer.data)
    await until_taken(guarded)

    assert refused == 10
    assert len(ingest.refused) == 16
    assert await guarded.state() == before


async def test_ingest_cannot_make_the_server_write_keys(guarded: Guarded) -> None:
    """It stores what it likes, and has the server publish it. Keys are in another account, so none is made of it."""
    before = (await guarded.state())["KV_keys"]
    async with attacker(guarded.server, "ingest") as ingest:
        await ingest.send("rejects.file", b'{"id":"mine"}')
        await ingest.send("rounds.crash", b'{"id":"mine"}')
        for target in ("$KV.keys.mine", "admins.mine", "audit.change.key", "usage.mine"):
            await ingest.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply=target)
        assert ingest.refused == []
    await until_taken(guarded)

    assert (await guarded.state())["KV_keys"] == before


async def test_admin_writes_keys_and_nothing_else(guarded: Guarded) -> None:
    """It stores keys under a condition, and reads all of its account and what a relay reads. It neither stores rounds
    nor changes streams or the audit log."""
    heard, before = await guarded.overhear(), await guarded.state()
    async with attacker(guarded.server, "admin") as admin:
        for expected, stored in ((0, True), (0, False), (1, True)):
            headers = {"Nats_Expected_Last_Subject_Sequence": str(expected)}
            answer = await admin.answer("$KV.keys.k1", b"{}", **headers)
            assert answer is not None
            assert ("error" not in json.loads(answer.data)) == stored
        for name in ("KV_keys", "ADMINS", "AUDIT", "AUDIT_REFUSED", "USAGE"):
            created = {"name": name, "subjects": ["other.*"]}
            for call, body in ((f"STREAM.INFO.{name}", b""), (f"STREAM.CREATE.{name}", json.dumps(created).encode())):
                assert await admin.answer(f"$JS.API.{call}", body) is not None, call
            for call in ("PURGE", "DELETE", "UPDATE", "MSG.DELETE"):
                assert await admin.answer(f"$JS.API.STREAM.{call}.{name}", b'{"seq":1}') is None
        for subject in ("audit.change.key", "admins.a1"):
            assert await admin.answer(subject, b"{}") is not None
        assert await admin.answer("$JS.API.DIRECT.GET.AUDIT", b'{"seq":1}') is not None
        assert await admin.answer("$JS.API.STREAM.INFO.ROUNDS") is not None
        refused = len(admin.refused)
        for subject in ("rounds.crash", "live.rounds.crash", "rejects.file"):
            await admin.send(subject, b"{}")
            await admin.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply=subject)
            await admin.send("$JS.API.DIRECT.GET.KV_keys", PAGE, reply=subject)
        await until_taken(guarded)
    after = await guarded.state()

    assert len(admin.refused) == refused + 3
    assert set(heard) == {"$KV.keys.k1", "audit.change.key", "admins.a1"}
    assert {name: config for name, (config, _) in after.items()} == {
        name: config for name, (config, _) in before.items()
    }
    assert after["ROUNDS"] == before["ROUNDS"]


@asynccontextmanager
async def following(url: str) -> AsyncIterator[aiohttp.StreamReader]:
    """Follow live rounds as a client does."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}/sse/crash", headers={"X-API-Key": DEMO_KEY}) as stream,
    ):
        await stream.content.readline()
        yield stream.content


async def metric(url: str, name: str) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as answer:
        [line] = [line for line in (await answer.text()).splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@pytest.mark.parametrize("user", ["relay", "ingest"])
async def test_a_running_relay_takes_no_answer_for_a_live_round(guarded: Guarded, user: str) -> None:
    """Relays of one account, and ingest, can make the server publish answers where relays hear live rounds.

    A relay reads only what was published as it was stored. It neither sends the answers to clients, nor takes them for
    a sign that the log was rebuilt, which would cost a read of the log for each.
    """
    operator = guarded.operator
    async with running(log_of(guarded.server, "relay", create=False)) as url, following(url) as stream:
        for number in range(5):
            await operator.publish("rounds.crash", round_at(number).to_json())
        rounds = [await next_round(stream) for _ in range(5)]
        asked = await metric(url, "relay_log_requests_total")
        async with attacker(guarded.server, user) as attacking:
            for target in ("live.rounds.crash", "live.rounds.dice"):
                await attacking.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply=target)
                await attacking.send("$JS.API.DIRECT.GET.ROUNDS", b'{"seq":8}', reply=target)
                await attacking.send("$JS.API.STREAM.MSG.GET.ROUNDS", b'{"seq":8}', reply=target)
            assert attacking.refused == []
        await until_taken(guarded)
        await operator.publish("rounds.crash", round_at(5).to_json())
        rounds.append(await next_round(stream))
        assert await metric(url, "relay_log_requests_total") == asked

    assert rounds == [round_at(number).round_id for number in range(6)]


async def next_round(stream: aiohttp.StreamReader) -> int:
    async with asyncio.timeout(20):
        async for line in stream:
            if line.startswith(b"data: "):
                return int(json.loads(line[6:])["round_id"])
    raise AssertionError("the stream has ended")


_KEYS: Final = '\n                    "$JS.API.STREAM.INFO.KV_keys"'
_INFO: Final = '"$JS.API.STREAM.INFO.ROUNDS", "$JS.API.STREAM.MSG.GET.ROUNDS", '
_GET: Final = '"$JS.API.DIRECT.GET.ROUNDS",'
MISSING: Final = {
    _INFO + _GET + _KEYS: (_GET + _KEYS, "publish to '$JS.API.STREAM.INFO.ROUNDS'"),
    _GET + _KEYS: (_KEYS, "publish to '$JS.API.DIRECT.GET.ROUNDS'"),
    '"_INBOX.relay.>"': ('"_INBOX.other.>"', "subscribe to '_INBOX.relay"),
}


@pytest.mark.parametrize("permission", MISSING)
async def test_a_missing_permission_is_named(tmp_path: Path, permission: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reports it apart from the request, which has no answer; the error names the subject and the page."""
    monkeypatch.setattr(connection, "_ANSWER_S", 0.5)
    monkeypatch.setattr("roundlog.reader._ANSWER_S", 0.5)
    given, named = MISSING[permission]
    async with guarded_by(server_of(tmp_path, text=accounts().replace(permission, given))) as guarded:
        settings = log_of(guarded.server, "relay", create=False)
        assert permission in accounts()
        with pytest.raises(LogDenied, match=rf"does not let this user {re.escape(named)}.*docs/operations\.md"):
            await read_all(settings)


async def read_all(settings: LogSettings) -> None:
    async with connect(settings, name="test") as opened, LogReader(settings) as reader:
        await read_log(opened, settings)
        await reader.first()


async def test_a_relay_that_may_not_hear_live_rounds_refuses_clients(tmp_path: Path) -> None:
    """Otherwise its clients would get each round seconds late, and nobody would know why."""
    text = accounts().replace(
        'subscribe: ["live.rounds.*", "$KV.keys.>", "relay.', 'subscribe: ["$KV.keys.>", "relay.', 1
    )
    async with guarded_by(server_of(tmp_path, text=text)) as guarded:
        with capture_logs() as logs:
            async with (
                running(log_of(guarded.server, "relay", create=False)) as url,
                aiohttp.ClientSession() as http,
                http.get(f"{url}/sse/crash", headers={"X-API-Key": DEMO_KEY}) as stream,
            ):
                async with asyncio.timeout(20):
                    content = await stream.read()

    assert b"data:" not in content
    assert [entry["reason"] for entry in logs if entry["event"] == "client_refused"] == ["log_unavailable"]
    refused = [entry["error"] for entry in logs if entry["event"] == "nats_denied"]
    [denied] = [error for error in refused if "live.rounds" in error]
    assert "does not let this user subscribe to 'live.rounds.*'" in denied
