"""What every store does that tools can edit: revisions, conflicts, revocations."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auth.revocations import Revocation
from auth.stores.key_store import Conflict, StoreUnavailable, UnreadableEntry
from tests.auth.stores.installations import EDITABLE
from tests.auth.stores.making import full_key, new_key
from tests.auth.stores.test_stores import Following

pytestmark = pytest.mark.service


@pytest.fixture(params=EDITABLE)
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    async with EDITABLE[request.param](tmp_path) as made:
        yield made


async def test_key_is_written_read_changed_and_deleted(installation: Any) -> None:
    """Each change needs the revision that the key has; a deleted key can be made again."""
    async with installation.open() as store:
        key = full_key()
        assert await store.read("full") is None

        first = await store.write(key, revision=0)
        assert await store.read("full") == (key, first)

        changed = replace(key, disabled=False)
        second = await store.write(changed, revision=first)
        assert await store.read("full") == (changed, second)

        await store.delete("full", revision=second)
        assert await store.read("full") is None
        assert (await store.load()).keys == ()

        third = await store.write(key, revision=0)
        assert await store.read("full") == (key, third)


@pytest.mark.parametrize("key_id", ["*", ">", "one.*", "*.b", "one=2Eb", "one.b ", "one.b\n", "one?b", "", " ", "."])
async def test_text_that_is_no_id_is_no_key(installation: Any, key_id: str) -> None:
    """In NATS it could name other entries."""
    async with installation.open() as store:
        for name in ("one.b", "two"):
            await store.write(new_key(name), revision=0)

        assert await store.read(key_id) is None


async def test_change_of_an_outdated_key_is_a_conflict(installation: Any) -> None:
    """Nothing is stored, so no change of somebody else is lost."""
    async with installation.open() as store:
        key = new_key("one")
        first = await store.write(key, revision=0)
        second = await store.write(replace(key, name="second"), revision=first)

        for attempt in (
            store.write(replace(key, name="third"), revision=first),
            store.write(key, revision=0),
            store.write(new_key("two"), revision=7),
            store.delete("one", revision=first),
        ):
            with pytest.raises(Conflict):
                await attempt
        assert await store.read("one") == (replace(key, name="second"), second)
        assert await store.read("two") is None


async def test_unreadable_entry_can_be_replaced_and_deleted(installation: Any) -> None:
    """Its error has the revision that a change needs."""
    async with installation.open() as store:
        await store.write(new_key("bad"), revision=0)
        await installation.put_raw("bad", '{"format": 9}')
        with pytest.raises(UnreadableEntry, match="format 9") as caught:
            await store.read("bad")

        revision = await store.write(new_key("bad"), revision=caught.value.revision)

        await store.delete("bad", revision=revision)
        assert await store.read("bad") is None


async def test_revocation_reaches_followers(installation: Any) -> None:
    """Stored again, it is harmless; one for a subject may have a time."""
    token = Revocation("token", "abc-._", time.time() + 60)
    subject = Revocation("subject", "user|17 ü", time.time() + 3600, issued_before=1_800_000_000.25)
    async with installation.open() as store, Following(installation.open()) as seen:
        await store.revoke(token)
        await seen.until(lambda: seen.revocations == {token})
        await store.revoke(token)
        await store.revoke(subject)
        await seen.until(lambda: seen.revocations == {token, subject})

        assert set((await store.load()).revocations) == {token, subject}


async def test_tool_gets_one_sentence_while_the_store_is_away(installation: Any) -> None:
    """Reading, writing and listing raise the same error, without secrets."""
    async with installation.open() as store:
        key = new_key("one")
        await store.write(key, revision=0)
        await installation.go_away()

        for attempt in (store.load(), store.read("one"), store.write(key, revision=1), store.delete("one", revision=1)):
            with pytest.raises(StoreUnavailable) as caught:
                await attempt
            assert str(caught.value)
            assert "\n" not in str(caught.value)
