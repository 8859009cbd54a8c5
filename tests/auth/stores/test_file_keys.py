"""The store in a file: half-written, broken and replaced files."""

import asyncio
from pathlib import Path

import pytest

from tests.auth.stores.installations import FileInstallation
from tests.auth.stores.making import new_key, toml_of
from tests.auth.stores.test_stores import Following

pytestmark = pytest.mark.service

_WRITE_S = 0.03
"""Between two lines of a slow writer: the follower looks several times before the last one."""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[keys.one", "is not TOML"),
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[key.one]\nhash = 'x'", "unknown field `key`"),
        (b"keys = 5", "Expected `object`"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
    ],
)
async def test_broken_file_leaves_the_keys(tmp_path: Path, content: bytes, says: str) -> None:
    """It is reported, and the next whole file is taken."""
    installation = FileInstallation(tmp_path / "keys.toml")
    await installation.put(one := new_key("one"))
    async with Following(installation.open()) as seen:
        await seen.until_keys(one)

        installation.path.write_bytes(content)
        await seen.until(lambda: seen.faults)
        assert says in next(iter(seen.faults.values()))
        assert seen.keys == {"one": one}

        await installation.put(two := new_key("two"))
        await seen.until_keys(one, two)
        assert seen.faults == {}
    assert seen.times_lost == 0


async def test_table_without_keys_removes_all(tmp_path: Path) -> None:
    """That is how an operator says so."""
    installation = FileInstallation(tmp_path / "keys.toml")
    await installation.put(new_key("one"))
    async with Following(installation.open()) as seen:
        await seen.until(lambda: seen.keys)
        installation.path.write_text("[keys]\n")
        await seen.until_keys()


async def test_file_that_is_written_in_place_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """Each half would be valid TOML, without half of the keys."""
    installation = FileInstallation(tmp_path / "keys.toml")
    keys = [new_key(f"key{number}") for number in range(20)]
    await installation.put(*keys)
    fewest = len(keys)
    async with Following(installation.open()) as seen:
        await seen.until_keys(*keys)
        with installation.path.open("w") as file:
            for key in [*keys, last := new_key("last")]:
                file.write(toml_of(key) + "\n")
                file.flush()
                await asyncio.sleep(_WRITE_S)
                fewest = min(fewest, len(seen.keys))
        await seen.until_keys(*keys, last)
    assert fewest == len(keys)


async def test_reload_reads_a_file_that_looks_the_same(tmp_path: Path) -> None:
    """SIGHUP reads it at once, whatever its size and times say."""
    installation = FileInstallation(tmp_path / "keys.toml")
    await installation.put(one := new_key("one"))
    store = installation.open()
    async with Following(store) as seen:
        await seen.until_keys(one)
        replaced = seen.replaced
        store.reload()
        await seen.until(lambda: seen.replaced > replaced)


async def test_link_that_is_pointed_elsewhere_is_a_change(tmp_path: Path) -> None:
    """Kubernetes replaces the files of a volume by a symbolic link."""
    first, second = FileInstallation(tmp_path / "a.toml"), FileInstallation(tmp_path / "b.toml")
    await first.put(one := new_key("one"))
    await second.put(two := new_key("two"))
    linked = FileInstallation(tmp_path / "keys.toml")
    linked.path.symlink_to(first.path)
    async with Following(linked.open()) as seen:
        await seen.until_keys(one)
        (tmp_path / "new").symlink_to(second.path)
        (tmp_path / "new").rename(linked.path)
        await seen.until_keys(two)
