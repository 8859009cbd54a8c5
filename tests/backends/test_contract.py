"""What `backends.contract` promises, held against every backend that there is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backends.contract import Backend, BackendContext, Captured
from backends.registry import make_backend
from rounds import Catalogue
from tests.backends.harness import make_round
from tests.postgres.ingesting import set_up_notify
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

BACKENDS = ["file", "postgres-notify", "postgres-replication"]
WAIT_S = 30.0


class Case(NamedTuple):
    """One backend and its source."""

    make: Callable[[], Backend[Any]]
    append: Callable[[int, int], Awaitable[None]]
    """Commit rounds, from the first id to the last."""


@pytest.fixture(params=BACKENDS)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    """Each backend with a source that is set up and empty."""
    name, context = request.param, BackendContext(Catalogue.load())
    if name == "file":
        path = tmp_path / "rounds.jsonl"
        path.touch()

        async def append(first: int, last: int) -> None:
            with path.open("ab") as file:
                file.writelines(make_round(number, "crash").to_json() + b"\n" for number in range(first, last + 1))

        options = {"path": str(path), "speed": "max", "state_file": str(tmp_path / "state")}
        yield Case(lambda: make_backend(name, options, context), append)
        return
    server = PostgresServer()
    try:
        await server.start()
        await server.make_rounds_table()
        await set_up_notify(server)
        more = {"lookback_ids": 0, "poll_s": 0.1} if name == "postgres-notify" else {"create": True}
        case = Case(lambda: make_backend(name, {"dsn": server.dsn(), **more}, context), server.insert_rounds)
        async with case.make().open():
            pass  # from here on the source keeps what is committed
        yield case
    finally:
        await server.discard()


@asynccontextmanager
async def reading(backend: Backend[Any]) -> AsyncIterator[AsyncIterator[Captured[Any]]]:
    """Open a backend, and give its rounds one by one."""
    async with backend.open():
        stream = backend.read()

        async def items() -> AsyncIterator[Captured[Any]]:
            async for batch in stream:
                assert batch, "a batch is never empty"
                for item in batch:
                    assert isinstance(item, Captured)
                    yield item

        try:
            yield items()
        finally:
            await stream.aclose()  # type: ignore[attr-defined]


async def take(items: AsyncIterator[Captured[Any]], count: int) -> list[Captured[Any]]:
    async with asyncio.timeout(WAIT_S):
        return [await anext(items) for _ in range(count)]


def ids(items: list[Captured[Any]]) -> list[int]:
    return [item.round.round_id for item in items]


async def test_rounds_come_in_the_order_of_their_commits(case: Case) -> None:
    """Several commits, one order."""
    await case.append(1, 30)
    await case.append(31, 60)
    async with reading(case.make()) as items:
        assert ids(await take(items, 60)) == list(range(1, 61))


async def test_what_was_not_confirmed_comes_again_after_a_restart(case: Case) -> None:
    """At least once, never less: a reader that crashed having confirmed nothing sees everything again."""
    await case.append(1, 30)
    async with reading(case.make()) as items:
        await take(items, 30)
    async with reading(case.make()) as items:
        assert ids(await take(items, 30)) == list(range(1, 31))


async def test_what_was_confirmed_does_not_come_again_and_what_follows_does(case: Case) -> None:
    """The place survives the process."""
    await case.append(1, 30)
    await case.append(31, 40)
    backend = case.make()
    async with reading(backend) as items:
        backend.confirm((await take(items, 40))[29].offset)
    async with reading(case.make()) as items:
        assert ids(await take(items, 10)) == list(range(31, 41))


async def test_confirming_a_part_loses_none_of_the_rest(case: Case) -> None:
    """Whatever is confirmed, everything after it comes again."""
    await case.append(1, 10)
    await case.append(11, 30)
    backend = case.make()
    async with reading(backend) as items:
        backend.confirm((await take(items, 30))[14].offset)
    async with reading(case.make()) as items:
        again: list[int] = []
        while not again or again[-1] != 30:
            again += ids(await take(items, 1))
    assert again[-15:] == list(range(16, 31))
    assert again == sorted(again)


async def test_cancelled_read_loses_nothing(case: Case) -> None:
    """Stopped between two batches or within a wait, it is as if nothing had been read."""
    await case.append(1, 5)
    async with reading(case.make()) as items:
        await take(items, 1)
    async with reading(case.make()) as items:
        assert ids(await take(items, 5)) == [1, 2, 3, 4, 5]


async def test_same_position_may_be_confirmed_again_and_leaving_is_quick(case: Case) -> None:
    """Confirming is a note, not a request; and nobody waits for a backend that is left."""
    await case.append(1, 5)
    backend = case.make()
    async with asyncio.timeout(WAIT_S):
        async with reading(backend) as items:
            offset = (await take(items, 5))[-1].offset
            backend.confirm(offset)
            backend.confirm(offset)
            left_at = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - left_at < 5
