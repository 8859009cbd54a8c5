"""The store in NATS: what its server, its tools and an operator can do to a bucket."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from auth.key import Key
from auth.stores.key_store import StoreUnavailable
from auth.stores.nats_keys import NatsKeys
from roundlog.buckets.bucket import Bucket
from roundlog.buckets.bucket_watch import BucketWatch
from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from tests.auth.stores.installations import NatsInstallation, nats_installation
from tests.auth.stores.making import new_key
from tests.auth.stores.recorder import Recorder
from tests.auth.stores.test_stores import Following
from tests.nats import NatsServer, nats_client
from tests.waiting import until

pytestmark = pytest.mark.service


async def ask(installation: NatsInstallation, call: str, **body: object) -> dict[str, Any]:
    """Call the JetStream API, as an operator's tool does."""
    async with nats_client(installation.settings) as client:
        answer = await client.request(f"$JS.API.{call}", msgspec.json.encode(body) if body else b"")
        found: dict[str, Any] = msgspec.json.decode(answer.data)
        assert "error" not in found, found
        return found


async def test_server_that_was_killed_again_and_again_loses_no_change(tmp_path: Path) -> None:
    """After each return, the follower knows what the bucket holds."""
    async with nats_installation(tmp_path) as installation:
        key = new_key("one")
        await installation.put(key)
        async with Following(installation.open()) as seen:
            for number in range(5):
                await installation.put(changed := replace(key, name=f"change {number}"))
                await installation.server.kill()
                await seen.until(lambda: seen.error is not None)
                await installation.server.start()
                await seen.until(lambda: seen.error is None)
                await seen.until_keys(changed)


async def test_frozen_server_counts_as_away(tmp_path: Path) -> None:
    """Its connections stay open; a request without an answer shows it."""
    async with nats_installation(tmp_path) as installation:
        await installation.put(key := new_key("one"))
        async with Following(installation.open()) as seen:
            await seen.until(lambda: seen.keys and seen.error is None)
            installation.server.freeze()
            try:
                await seen.until(lambda: seen.error is not None)
            finally:
                installation.server.thaw()
            await seen.until(lambda: seen.error is None)
            await seen.until_keys(key)


@pytest.mark.parametrize("purged", [{"filter": "$KV.keys.key.two"}, {}], ids=["one entry", "all"])
async def test_purge_of_the_stream_removes_keys(tmp_path: Path, purged: dict[str, str]) -> None:
    """It publishes nothing, so the number of entries shows it."""
    async with nats_installation(tmp_path) as installation:
        one, two = new_key("one"), new_key("two")
        await installation.put(one, two)
        async with Following(installation.open()) as seen:
            await seen.until_keys(one, two)

            await ask(installation, "STREAM.PURGE.KV_keys", **purged)

            await seen.until_keys(*((one,) if purged else ()))
            assert seen.times_lost == 0


async def test_deleted_bucket_leaves_the_keys_and_a_new_one_replaces_them(tmp_path: Path) -> None:
    """A relay makes no bucket itself: it would be empty, and refuse every client."""
    async with nats_installation(tmp_path) as installation:
        await installation.put(new_key("one"), new_key("two"))
        async with Following(installation.open()) as seen:
            await seen.until(lambda: len(seen.keys) == 2)

            await ask(installation, "STREAM.DELETE.KV_keys")
            await seen.until(lambda: seen.error is not None)
            assert len(seen.keys) == 2
            assert "stream-relay key create" in str(seen.error)

            await installation.put(key := new_key("three"))
            await seen.until_keys(key)


async def test_bucket_that_nats_tools_made_is_followed(tmp_path: Path) -> None:
    """One without a time to live, with one value of history, whose deletions leave markers (``nats kv add``)."""
    async with nats_installation(tmp_path) as installation:
        config = {"name": "KV_keys", "subjects": ["$KV.keys.>"], "max_msgs_per_subject": 1, "allow_direct": True}
        await ask(installation, "STREAM.CREATE.KV_keys", **config, allow_rollup_hdrs=True, deny_delete=True)
        store = installation.open()
        one = new_key("one")
        revision = await store.write(one, revision=0)
        async with Following(installation.open()) as seen:
            await seen.until_keys(one)
            revision = await store.write(replace(one, name="again"), revision=revision)
            await seen.until(lambda: seen.keys["one"].name == "again")
            async with nats_client(installation.settings) as client:
                await client.request("$KV.keys.key.one", b"", headers={"KV-Operation": "DEL"})
            await seen.until_keys()
            revision = await store.write(one, revision=0)
            await seen.until_keys(one)
            await store.delete("one", revision=revision)
            await seen.until_keys()


async def test_hint_without_a_change_changes_nothing(tmp_path: Path) -> None:
    """A message that the stream refuses reaches followers too; they believe only what is stored."""
    async with nats_installation(tmp_path) as installation:
        await installation.put(key := new_key("one"))
        async with Following(installation.open()) as seen:
            await seen.until_keys(key)
            async with nats_client(installation.settings) as client:
                for _ in range(3000):
                    await client.publish(
                        "$KV.keys.key.one", b"{}", headers={"Nats-Expected-Last-Subject-Sequence": "99"}
                    )
                await client.flush()
            await installation.put(other := new_key("two"))
            await seen.until_keys(key, other)
            assert seen.faults == {}


async def test_change_without_a_hint_is_seen_in_half_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between accounts, where the publish of a tool does not reach relays. Here no hint is ever published."""

    async def unheard(_self: BucketWatch, _message: object) -> None:
        pass

    monkeypatch.setattr(BucketWatch, "_on_hint", unheard)
    monkeypatch.setattr("roundlog.buckets.bucket_watch._STATE_S", 3600.0)
    async with nats_installation(tmp_path) as installation:
        await installation.put(key := new_key("one"))
        async with Following(installation.open()) as seen:
            await seen.until_keys(key)
            for number in range(3):
                await installation.put(changed := replace(key, name=f"change {number}"))
                started = asyncio.get_running_loop().time()
                await seen.until_keys(changed)
                assert asyncio.get_running_loop().time() - started < 1.0


async def test_ten_thousand_keys_are_loaded_without_holding_up_the_loop(tmp_path: Path) -> None:
    """Others have a turn between pages, also when everything is read again after an outage."""
    async with nats_installation(tmp_path) as installation:
        keys = [new_key(f"key{number}") for number in range(10_000)]
        await installation.put(*keys)
        longest_s = 0.0

        async def watch_turns() -> None:
            nonlocal longest_s
            loop = asyncio.get_running_loop()
            while True:
                before = loop.time()
                await asyncio.sleep(0)
                longest_s = max(longest_s, loop.time() - before)

        turns = asyncio.create_task(watch_turns())
        async with Following(installation.open()) as seen:
            await seen.until(lambda: len(seen.keys) == 10_000)
            await installation.server.kill()
            await seen.until(lambda: seen.error is not None)
            await installation.server.start()
            await seen.until(lambda: seen.error is None)
            assert len(seen.keys) == 10_000
        await cancel_and_wait(turns)
        assert longest_s < 1.0


async def test_revocation_is_removed_when_it_is_not_needed_any_more(tmp_path: Path) -> None:
    """The server removes it by its time to live, which followers expect: they do not read everything again."""
    async with nats_installation(tmp_path) as installation:
        store = installation.open()
        await store.write(new_key("one"), revision=0)
        async with nats_client(installation.settings) as client:
            await client.request("$KV.keys.revoked.token.x", b"{}", headers={"Nats-TTL": "1s"})
        async with Following(installation.open()) as seen:
            await seen.until(lambda: seen.replaced)

            async def is_gone() -> bool:
                return bool((await ask(installation, "STREAM.INFO.KV_keys"))["state"]["num_subjects"] == 1)

            await until(is_gone)
            await installation.put(new_key("two"))
            await seen.until(lambda: len(seen.keys) == 2)
            assert seen.replaced == 1


async def test_missing_replicas_are_those_of_the_settings(tmp_path: Path) -> None:
    """A single server cannot hold a bucket of three replicas; the error says so."""
    async with nats_installation(tmp_path) as installation:
        settings = installation.settings.model_copy(update={"replicas": 3})
        with pytest.raises(Exception, match="replicas > 1"):
            await NatsKeys(settings).write(Key("one", "private"), revision=0)


async def test_wrong_credentials_are_tried_again(tmp_path: Path) -> None:
    """An operator may correct them in the server."""
    async with nats_installation(tmp_path) as installation:
        settings = installation.settings.model_copy(update={"url": installation.server.url.replace("nats:", "tls:")})
        seen = Recorder()
        task = asyncio.create_task(NatsKeys(settings).follow(seen))
        await seen.until(lambda: seen.error is not None)
        assert not task.done()
        await cancel_and_wait(task)


_USERS = """
authorization {{ users = [
  {{user: relay, password: r, permissions: {{
    publish: {{allow: ["$JS.API.STREAM.INFO.KV_keys", "$JS.API.DIRECT.GET.KV_keys"]}}
    subscribe: {{allow: ["$KV.keys.>", "_INBOX.>"]}} }} }}
  {{user: tool, password: t, permissions: {{
    publish: {{allow: ["$JS.API.STREAM.INFO.KV_keys", "$JS.API.DIRECT.GET.KV_keys", "$KV.keys.>",
                      "$JS.API.STREAM.MSG.GET.KV_keys", "$JS.API.STREAM.CREATE.KV_keys"]}}
    subscribe: {{allow: ["$KV.keys.>", "_INBOX.>"]}} }} }}
] }}
"""


async def test_permissions_that_the_page_states_suffice(tmp_path: Path) -> None:
    """A relay follows with its few subjects and cannot write; a tool makes the bucket and writes."""
    server = NatsServer(tmp_path, config=_USERS.format())
    await server.start()
    try:
        url = f"127.0.0.1:{server.port}"
        tool = NatsKeys(LogSettings(url=f"nats://tool:t@{url}"))
        relay = NatsKeys(LogSettings(url=f"nats://relay:r@{url}", connect_timeout_s=1))
        one = new_key("one")
        revision = await tool.write(one, revision=0)
        async with Following(relay) as seen:
            await seen.until_keys(one)
            await tool.write(other := new_key("two"), revision=0)
            await seen.until_keys(one, other)
            await tool.delete("one", revision=revision)
            await seen.until_keys(other)
        with pytest.raises(StoreUnavailable):
            await relay.write(one, revision=1)
        assert [key.id for key in (await relay.load()).keys] == ["two"]
    finally:
        await server.kill()


@pytest.mark.parametrize("key", ["*", ">", "key.*", "key.>", "", ".", "key.", "a b", "a\r\nb"])
async def test_bucket_takes_no_key_that_could_mean_others(key: str) -> None:
    """Deletion of a wildcard would remove all entries."""
    nothing: Any = SimpleNamespace(request=None)
    with pytest.raises(ValueError, match="is no key of a bucket"):
        await Bucket(nothing, "keys").delete(key, revision=1)
