"""The store in PostgreSQL: changes by hand, privileges, and notifications that do not arrive."""

from dataclasses import replace
from pathlib import Path

import pytest

from auth.stores.key_store import StoreDenied, StoreUnavailable
from auth.stores.postgres_keys import PostgresKeys, statement
from tests.auth.stores.installations import postgres_installation
from tests.auth.stores.making import new_key
from tests.auth.stores.test_stores import Following

pytestmark = pytest.mark.service


async def test_change_is_seen_without_a_notification(tmp_path: Path) -> None:
    """A pooler may not deliver it, and a trigger may be missing: the tables are also looked at."""
    async with postgres_installation(tmp_path) as installation:
        key = new_key("one")
        await installation.put(key)
        for table in ("keys", "revocations"):
            await installation.server.execute(f"DROP TRIGGER wake_key_readers ON stream_relay.{table}")
        async with Following(installation.open()) as seen:
            await seen.until_keys(key)
            await installation.put(narrowed := replace(key, disabled=True))
            await seen.until_keys(narrowed)
            await installation.server.execute("TRUNCATE stream_relay.keys")
            await seen.until_keys()


async def test_change_by_hand_changes_the_revision(tmp_path: Path) -> None:
    """A tool that read the key before does not overwrite it."""
    async with postgres_installation(tmp_path) as installation:
        store = installation.open()
        revision = await store.write(new_key("one"), revision=0)

        await installation.server.execute("UPDATE stream_relay.keys SET members = members || '{\"disabled\": true}'")

        found = await store.read("one")
        assert found is not None
        assert found[0].disabled
        assert found[1] > revision


async def test_relays_need_to_read_and_tools_to_write(tmp_path: Path) -> None:
    """With the privileges that docs/keys.md states, a relay follows and cannot write, and a tool can."""
    async with postgres_installation(tmp_path) as installation:
        await installation.put(key := new_key("one"))
        for role in ("relay_keys", "relay_admin"):
            await installation.server.execute(f"CREATE ROLE {role} LOGIN")
        grants = statement("grant_key_tables").replace(':"relay"', "relay_keys").replace(':"tools"', "relay_admin")
        for grant in grants.split(";"):
            if grant.strip():
                await installation.server.execute(grant)
        relay = PostgresKeys(installation.server.dsn(user="relay_keys"))
        tool = PostgresKeys(installation.server.dsn(user="relay_admin"))

        async with Following(relay) as seen:
            await seen.until_keys(key)
            other = new_key("two")
            revision = await tool.write(other, revision=0)
            await seen.until_keys(key, other)
            await tool.delete("two", revision=revision)
            await seen.until_keys(key)
        for attempt in (relay.write(new_key("three"), revision=0), relay.delete("one", revision=1)):
            with pytest.raises(StoreDenied, match="permission denied for table keys"):
                await attempt


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:hunter2@127.0.0.1:1/x", "postgresql://u:hunter2@[::1/x", "not a dsn hunter2", ""]
)
async def test_wrong_dsn_is_one_sentence_without_the_password(dsn: str) -> None:
    """Also when it cannot be parsed."""
    with pytest.raises(StoreUnavailable) as caught:
        await PostgresKeys(dsn).load()

    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
