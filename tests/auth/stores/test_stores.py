"""What every key store does: one suite on real servers and files."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from auth.stores.key_store import KeyStore
from roundlog.tasks import cancel_and_wait
from tests.auth.stores.installations import INSTALLATIONS, Installation
from tests.auth.stores.making import full_key, new_key
from tests.auth.stores.recorder import Recorder

pytestmark = pytest.mark.service


@pytest.fixture(params=INSTALLATIONS)
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    async with INSTALLATIONS[request.param](tmp_path) as made:
        yield made


class Following:
    """Follows a store while the block runs."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.seen = Recorder()

    async def __aenter__(self) -> Recorder:
        await self._store.__aenter__()
        self._task = asyncio.create_task(self._store.follow(self.seen))
        return self.seen

    async def __aexit__(self, *error: object) -> None:
        assert not self._task.done(), self._task
        await cancel_and_wait(self._task)
        await self._store.__aexit__(*error)


async def test_store_loads_what_was_written(installation: Installation) -> None:
    """Every member of a key survives, and there are no faults."""
    keys = [full_key(), new_key("plain"), new_key("with.dots_and-more"), replace(new_key("x"), games=frozenset({"a"}))]
    await installation.put(*keys)

    async with installation.open() as store:
        contents = await store.load()

    assert {key.id: key for key in contents.keys} == {key.id: key for key in keys}
    assert (contents.revocations, contents.faults) == ((), {})


async def test_follower_gets_the_contents_then_every_change(installation: Installation) -> None:
    """New, changed and removed keys come one after another, and the contents as a whole only once."""
    one, two = new_key("one"), new_key("two")
    await installation.put(one)

    async with Following(installation.open()) as seen:
        await seen.until_keys(one)
        await seen.until(lambda: seen.error is None)

        await installation.put(two)
        await seen.until_keys(one, two)

        await installation.put(narrowed := replace(one, games=frozenset({"crash"}), disabled=True))
        await seen.until_keys(narrowed, two)

        await installation.remove("two")
        await seen.until_keys(narrowed)

        await installation.put(again := new_key("two"))
        await seen.until_keys(narrowed, again)
    assert (seen.times_lost, seen.faults) == (0, {})


async def test_entry_that_cannot_be_read_is_no_key_and_harms_no_other(installation: Installation) -> None:
    """It is reported with a sentence that has no secret; corrected, it is a key again."""
    good, bad = new_key("good"), new_key("bad")
    await installation.put(good, bad)

    async with Following(installation.open()) as seen:
        await seen.until_keys(good, bad)
        for text in ('{"format":1', '{"format":1,"kind":"private"}', '{"format":2}'):
            await installation.put_raw("bad", text)
            await seen.until(lambda: "bad" in seen.faults)
            await seen.until_keys(good)
            assert "bad" in seen.faults["bad"]

            await installation.put(bad)
            await seen.until_keys(good, bad)
            assert seen.faults == {}


async def test_changes_during_an_outage_are_seen_after_it(installation: Installation) -> None:
    """The follower says that the store is away, keeps what it knows, and reads everything afterwards."""
    one, two = new_key("one"), new_key("two")
    await installation.put(one)

    async with Following(installation.open()) as seen:
        await seen.until_keys(one)
        await installation.go_away()
        await seen.until(lambda: seen.error is not None)
        assert seen.keys == {"one": one}
        replaced = seen.replaced

        await installation.come_back()
        await seen.until(lambda: seen.error is None)
        assert seen.replaced > replaced
        await installation.put(two)
        await seen.until_keys(one, two)


async def test_follower_waits_for_a_store_that_is_away_at_its_start(installation: Installation) -> None:
    """It says so in one sentence and tries again."""
    key = new_key("one")
    await installation.put(key)
    await installation.go_away()

    async with Following(installation.open()) as seen:
        await seen.until(lambda: seen.error is not None)
        assert "\n" not in str(seen.error)
        await installation.come_back()
        await seen.until_keys(key)


async def test_a_thousand_keys(installation: Installation) -> None:
    """All of them come, and so does a change of one."""
    keys = [new_key(f"key{number}") for number in range(1000)]
    await installation.put(*keys)

    async with Following(installation.open()) as seen:
        await seen.until_keys(*keys)
        await installation.put(changed := replace(keys[500], name="changed"))
        await seen.until(lambda: seen.keys["key500"] == changed)
        await installation.remove("key7")
        await seen.until(lambda: len(seen.keys) == 999)
