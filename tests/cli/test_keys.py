"""``stream-relay key`` and ``stream-relay admin`` as an operator runs them, against a real NATS and a real relay."""

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import pytest

from auth.key_ring import KeyRing
from roundlog.log_settings import LogSettings
from tests.cli.command import Outcome, assert_one_line, run, started
from tests.nats import NatsServer, nats_client
from tests.relay.conftest import StartRelay, client, start_relay
from tests.waiting import until

pytestmark = pytest.mark.service
__all__ = ("client", "start_relay")  # fixtures

CONF: Final = """
authorization {
  users = [
    { user: all, password: secret }
    { user: relay, password: secret, permissions: { publish: ["$JS.API.STREAM.INFO.>"], subscribe: ["_INBOX.>"] } }
  ]
}
"""


@pytest.fixture
async def relay_url(nats: NatsServer, start_relay: StartRelay) -> AsyncIterator[str]:
    """A relay that follows the key store in NATS, which the first key makes; until then the relay is not ready."""
    async with start_relay(keys=KeyRing(), follow_stores=True, ready=False) as url:
        yield url


async def cli(nats: NatsServer, *arguments: str, **environment: str) -> Outcome:
    return await asyncio.to_thread(run, *arguments, RELAY_NATS_URL=nats.url, **environment)


async def becomes(client: aiohttp.ClientSession, url: str, secret: str, status: int) -> None:
    """Wait until a key gets this status; a second is promised after the command."""

    async def has_status() -> bool:
        async with client.get(f"{url}/api/games", headers={"X-API-Key": secret}) as answer:
            return answer.status == status

    await until(has_status, within_s=1)


async def test_an_operator_hands_out_a_key_and_takes_it_back(
    nats: NatsServer, relay_url: str, client: aiohttp.ClientSession
) -> None:
    """From a shell: create, disable, enable, rotate, narrow, delete. The relay follows each within a second."""
    created = await cli(nats, "key", "create", "--name", "Partner A", "--limit", "requests_per_min=500")
    assert created.code == 0, created.err
    secret = created.out.strip()
    assert re.fullmatch("sk_live_[0-9a-f]{64}", secret)
    assert "its secret, not shown again:" in created.err
    await becomes(client, relay_url, secret, 200)

    assert (await cli(nats, "key", "disable", "partner-a")).code == 0
    await becomes(client, relay_url, secret, 401)
    enabled = await cli(nats, "key", "enable", "partner-a", "--json")
    assert json.loads(enabled.out)["status"] == "active"
    await becomes(client, relay_url, secret, 200)

    rotated = await cli(nats, "key", "rotate", "partner-a", "--overlap", "0", "--json")
    new = json.loads(rotated.out)["secret"]
    await becomes(client, relay_url, secret, 401)
    await becomes(client, relay_url, new, 200)

    assert (await cli(nats, "key", "set", "partner-a", "--game", "crash")).code == 0
    [listed] = json.loads((await cli(nats, "key", "list", "--json")).out)
    assert (listed["name"], listed["games"], listed["limits"]) == ("Partner A", ["crash"], {"requests_per_min": 500})
    shown = await cli(nats, "key", "show", "partner-a")
    assert re.search(r"^secrets +sk_live_\w{4}\.\.\.", shown.out, re.MULTILINE)

    unsure = await cli(nats, "key", "delete", "partner-a")
    assert_one_line(unsure, "add --yes")
    assert (await cli(nats, "key", "delete", "partner-a", "--yes")).code == 0
    await becomes(client, relay_url, new, 401)

    audit = await cli(nats, "key", "audit", "--json", "--no-refused")
    entries = [json.loads(line) for line in audit.out.splitlines()]
    assert [entry["action"].partition(".")[2] for entry in entries] == [
        "create", "disable", "enable", "rotate", "set", "delete",
    ]  # fmt: skip
    assert all(entry["actor"].startswith("os_user:") for entry in entries)
    for text in (audit.out, shown.out, shown.err, created.err, rotated.err):
        assert secret[12:] not in text
        assert new[12:] not in text
        assert hashlib.sha256(new.encode()).hexdigest() not in text


async def test_keys_of_the_environment_are_taken_over(nats: NatsServer) -> None:
    """By one command, which can be repeated; until then they can be looked at, and changed by hand only."""
    digest = secrets.token_hex(32)
    env = {"RELAY_AUTH_KEYS": f"a=sha256:{digest}; b=sha256:{secrets.token_hex(32)} games=dice"}

    by_hand = await cli(nats, "key", "list", "--json", **env)
    assert [key["id"] for key in json.loads(by_hand.out)] == ["a", "b"]
    refused = await cli(nats, "key", "disable", "a", **env)
    assert_one_line(refused, "keys are in the store 'env'", "stream-relay key import", "RELAY_AUTH_STORE=nats")
    dry = await cli(nats, "key", "import", "--dry-run", **env)
    assert "2 of 2 keys would be created" in dry.err
    first = await cli(nats, "key", "import", "--json", **env)
    assert [one["result"] for one in json.loads(first.out)] == ["created", "created"]
    assert "set RELAY_AUTH_STORE=nats" in first.err
    again = await cli(nats, "key", "import", **env)
    assert again.code == 0
    assert "0 of 2 keys were created" in again.err
    other = await cli(nats, "key", "import", RELAY_AUTH_KEYS=f"c=sha256:{digest}")
    assert other.code == 1
    assert "the store has this secret as key 'a'" in other.out
    assert [key["id"] for key in json.loads((await cli(nats, "key", "list", "--json")).out)] == ["a", "b"]


async def test_first_admin_credential_opens_the_admin_api(nats: NatsServer, client: aiohttp.ClientSession) -> None:
    """Made by a command, accepted by the process that the next command starts; listed and deleted again."""
    made = await cli(nats, "admin", "create", "ops")
    secret = made.out.strip()
    assert re.fullmatch("admin_[0-9a-f]{64}", secret)
    assert secret not in made.err
    taken = await cli(nats, "admin", "create", "ops")
    assert_one_line(taken, "admin credential 'ops' exists already")
    program = started("admin", "serve", "--port", "0", RELAY_NATS_URL=nats.url, RELAY_LOG_FORMAT="json")
    try:
        [found] = await asyncio.to_thread(program.wait_for, r"(?P<url>http://127\.0\.0\.1:\d+).*admin_listening")
        url = found["url"]
        bearer = {"Authorization": f"Bearer {secret}"}
        async with client.post(f"{url}/admin/keys", headers=bearer, json={"id": "a"}) as answer:
            assert answer.status == 201
            key: dict[str, Any] = await answer.json()
        listed = json.loads((await cli(nats, "admin", "list", "--json")).out)
        assert [(one["id"], one["prefix"]) for one in listed] == [("ops", secret[:10])]
        assert_one_line(await cli(nats, "admin", "delete", "ops"), "add --yes")
        assert (await cli(nats, "admin", "delete", "ops", "--yes")).code == 0

        async def refused() -> bool:
            async with client.get(f"{url}/admin/keys", headers=bearer) as answer:
                return answer.status == 401

        await until(refused, within_s=1)
    finally:
        program.stop()
    printed = "\n".join(program.printed)
    assert secret[12:] not in printed
    assert key["secret"][12:] not in printed


async def test_what_only_the_store_knows_is_one_line(nats: NatsServer) -> None:
    """With the value, and what is allowed."""
    for arguments, parts in (
        (("show", "nope"), ("there is no key 'nope'; there are no keys yet",)),
        (("create", "a", "--game", "krash"), ("games holds 'krash'", "similar: crash")),
        (("import",), ("neither RELAY_AUTH_KEYS nor RELAY_AUTH_KEYS_FILE has a key",)),
        (("show", f"sk_live_{64 * '5'}"), ("there is no key 'sk_live_***'",)),
    ):
        ended = await cli(nats, "key", *arguments)
        assert_one_line(ended, *parts)
        assert 10 * "5" not in ended.err


async def test_keys_are_changed_and_shown_also_where_their_usage_cannot_be_read(nats: NatsServer) -> None:
    """The change is made, so the command must not end as if it had failed."""
    assert (await cli(nats, "key", "create", "a")).code == 0
    env = {"RELAY_NATS_CREATE": "false"}  # so nothing makes the stream of usage

    for arguments in (("disable", "a"), ("list",)):
        done = await cli(nats, "key", *arguments, **env)
        assert done.code == 0
        assert "disabled" in done.out
        assert re.fullmatch("when keys were used is not known: stream 'USAGE' does not exist.*\n", done.err)


async def test_entry_that_is_no_key_is_reported_with_the_list(nats: NatsServer) -> None:
    """Its client is refused, so an operator who looks for the key must see why it is not there."""
    assert (await cli(nats, "key", "create", "a")).code == 0
    async with nats_client(LogSettings(url=nats.url)) as nc:
        await nc.publish("$KV.keys.key.bad", b'{"format":1,"hsh":"x"}')
        await nc.flush()

    listed = await cli(nats, "key", "list", "--json")

    assert [key["id"] for key in json.loads(listed.out)] == ["a"]
    assert re.fullmatch("no key: .*'bad'.*unknown field `hsh`.*\n", listed.err)


async def test_nats_that_is_away_or_refuses_is_one_line(nats: NatsServer) -> None:
    """The exit status says whether repeating the command may help."""
    await nats.stop()
    away = await cli(nats, "key", "list", RELAY_NATS_CONNECT_TIMEOUT_S="0.5")
    assert (away.code, away.out) == (3, "")
    assert re.fullmatch(r"stream-relay: the key store cannot be reached: NATS at \S+ cannot be reached: .*\n", away.err)

    guarded = NatsServer(nats.store, config=CONF)
    await guarded.start()
    try:
        denied = await cli(guarded, "key", "create", "a", RELAY_NATS_USER="relay", RELAY_NATS_PASSWORD="secret")
    finally:
        await guarded.kill()
    assert denied.code == 1
    assert "does not let this user publish to '$JS.API." in denied.err
    assert "use the NATS user for administration" in denied.err
