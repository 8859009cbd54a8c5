"""Rounds that the server takes for stored although the log does not hold them: they get in again.

nats-server remembers an id for its duplicate window, also when the message is gone.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from backends.contract import Captured, Rejected
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import read_log
from roundlog.tail import newest_ids, stored_pages
from tests.backends.harness import DeadLetters, Source, captured_events
from tests.backends.publish.test_publisher import publisher
from tests.nats import NatsServer, nats_client
from tests.nats_cluster import nats_cluster

pytestmark = pytest.mark.service


async def api(url: str, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    async with nats_client(LogSettings(url=url)) as nc:
        answer = await nc.request(f"$JS.API.{call}", msgspec.json.encode(body or {}))
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    assert "error" not in decoded, decoded
    return decoded


async def ids(settings: LogSettings) -> list[str]:
    """The ids that the log holds, in its order, as every reader of ids has them."""
    async with connect(settings, name="test") as connection:
        info = await read_log(connection, settings)
        pages = stored_pages(connection, info.stream, first=1, last=info.last)
        return [one.decode() async for page in pages for one in page.ids]


def ids_of(source: Source) -> list[str]:
    return [f"{round_.game_slug}:{round_.round_id}" for round_ in source.rounds]


GONE: dict[str, tuple[str, dict[str, Any], slice]] = {
    "purged": ("STREAM.PURGE.ROUNDS", {}, slice(0, 30)),
    "purged by sequence": ("STREAM.PURGE.ROUNDS", {"seq": 21}, slice(0, 20)),
    "purged by game": ("STREAM.PURGE.ROUNDS", {"filter": "rounds.double"}, slice(0, 30, 3)),
    "one message deleted": ("STREAM.MSG.DELETE.ROUNDS", {"seq": 17}, slice(16, 17)),
}


@pytest.mark.parametrize("how", GONE)
async def test_round_that_was_deleted_is_stored_again(nats: NatsServer, how: str) -> None:
    """The source yields everything again, within the duplicate window: what the log lacks is stored, nothing twice."""
    settings, source = LogSettings(url=nats.url), Source(30)
    await publisher(nats.url, source).run(source.read())
    before = await ids(settings)
    call, body, gone = GONE[how]
    await api(nats.url, call, body)
    missing = before[gone]
    assert set(await ids(settings)) == set(before) - set(missing)

    # Nothing is known of the log's tail, so that the server alone recognises what it has.
    again = publisher(nats.url, source, tail_rounds=0)
    with captured_events() as events:
        await again.run(source.read())

    assert sorted(await ids(settings)) == sorted(before)
    assert (again.stats.acked, again.stats.duplicates) == (len(missing), 30 - len(missing))
    assert "rounds_missing_from_log" in events
    assert source.confirmed[-1] == 30

    # They are known by their own ids, also when they are deleted and yielded once more.
    third = publisher(nats.url, source)
    await third.run(source.read())
    assert (third.stats.acked, third.stats.duplicates) == (0, 30)
    async with connect(settings, name="test") as connection:
        assert set(await newest_ids(connection, "ROUNDS")) == {"crash", "double", "fortune-dragon"}
    await api(nats.url, "STREAM.PURGE.ROUNDS")
    fourth = publisher(nats.url, source, tail_rounds=0)
    await fourth.run(source.read())
    assert sorted(await ids(settings)) == sorted(before)


async def test_rounds_discarded_from_a_full_log_are_stored_again(nats: NatsServer) -> None:
    """A log that is full discards its oldest rounds within the duplicate window."""
    settings, source = LogSettings(url=nats.url, max_bytes=4000), Source(60)
    await one(settings, source).run(source.read())
    held = len(await ids(settings))
    assert 0 < held < 60

    again = one(settings, source, tail_rounds=0)
    await again.run(source.read())

    assert again.stats.acked >= 60 - held
    assert (await ids(settings))[-1] in ids_of(source)


def one(settings: LogSettings, source: Any, **options: Any) -> Publisher[int]:
    return Publisher(
        settings, PublisherSettings(**options), confirm=source.confirm, rejects=DeadLetters(), with_offsets=None
    )


class Twice:
    """Yields rounds, does something, and yields them again."""

    def __init__(self, first: Source, between: Any) -> None:
        self._first, self._between = first, between

    async def read(self) -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        async for batch in self._first.read():
            yield batch
        await self._between()
        async for batch in self._first.read():
            yield batch


@pytest.mark.parametrize("body", [{}, {"filter": "rounds.crash"}, {"seq": 15}], ids=str)
async def test_known_round_that_was_deleted_since_is_stored_again(nats: NatsServer, body: dict[str, Any]) -> None:
    """This process has read the log's tail before, and would skip the round without asking the server."""
    settings, source = LogSettings(url=nats.url), Source(30)
    await publisher(nats.url, source).run(source.read())

    async def purge() -> None:
        await api(nats.url, "STREAM.PURGE.ROUNDS", body)

    again = publisher(nats.url, source)
    await again.run(Twice(source, purge).read())

    assert sorted(await ids(settings)) == sorted(ids_of(source))
    assert again.stats.acked + again.stats.duplicates == 60


async def test_stream_that_is_made_again_gets_everything_again(nats: NatsServer) -> None:
    """Neither the server nor this process takes a round of the old stream for one of the new."""
    settings, source = LogSettings(url=nats.url), Source(30)
    await publisher(nats.url, source).run(source.read())

    async def remake() -> None:
        await api(nats.url, "STREAM.DELETE.ROUNDS")
        async with connect(settings, name="test") as connection:
            await read_log(connection, settings)

    again = publisher(nats.url, source)
    await again.run(Twice(source, remake).read())

    assert sorted(await ids(settings)) == sorted(ids_of(source))


@pytest.mark.heavy
async def test_replicated_log_gets_deleted_rounds_again(tmp_path: Any) -> None:
    """With one round per game, with batches, and for one that was deleted in the middle."""
    async with nats_cluster(tmp_path) as servers:
        settings = LogSettings(url=servers["a"].url, replicas=3)
        source = Source(300)
        await one(settings, source).run(source.read())
        before = await ids(settings)
        await api(settings.url, "STREAM.MSG.DELETE.ROUNDS", {"seq": 250})
        await api(settings.url, "STREAM.PURGE.ROUNDS", {"seq": 101})

        again = one(settings, source, tail_rounds=0)
        await again.run(source.read())

        assert sorted(await ids(settings)) == sorted(before)
        assert (again.stats.acked, again.stats.duplicates) == (101, 199)
        await api(settings.url, "STREAM.PURGE.ROUNDS")
        more = one(settings, source, tail_rounds=0)
        await more.run(source.read())
        assert sorted(await ids(settings)) == sorted(before)


async def test_duplicate_that_the_log_holds_is_not_stored_again(nats: NatsServer) -> None:
    """Another process has stored it: that is all that a duplicate usually is."""
    settings, source = LogSettings(url=nats.url), Source(3000)
    await publisher(nats.url, source).run(source.read())

    with captured_events() as events:
        again = publisher(nats.url, source, tail_rounds=0)
        await again.run(source.read())

    assert (again.stats.acked, again.stats.duplicates) == (0, 3000)
    assert "rounds_missing_from_log" not in events
    assert len(await ids(settings)) == 3000
