"""The publisher against a real nats-server: nothing is lost or stored twice, and order is kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import roundlog.tail
from backends.contract import Captured, Rejected, SourceError
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import Round
from tests.backends.harness import DeadLetters, Source, assert_log_is, captured_events, make_round, stored
from tests.edits import edit
from tests.nats import NatsServer, nats_client
from tests.network.wire import Wire
from tests.waiting import until

pytestmark = pytest.mark.service

_SHORT_WINDOW_S = 0.1


def publisher(
    url: str, source: Source, rejects: DeadLetters | None = None, *, window_s: float = 120, **settings: Any
) -> Publisher[int]:
    return Publisher(
        LogSettings(url=url, duplicate_window_s=window_s, connect_timeout_s=1),
        PublisherSettings(**settings),
        confirm=source.confirm,
        rejects=rejects or DeadLetters(),
    )


async def api(server: NatsServer, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    async with nats_client(LogSettings(url=server.url)) as nc:
        answer = await nc.request(f"$JS.API.{call}", msgspec.json.encode(body) if body else b"")
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    return decoded


async def duplicate_window_passed(server: NatsServer) -> None:
    """Wait until the server has dropped all ids of its duplicate window: it stores the newest of them again."""
    async with nats_client(LogSettings(url=server.url)) as nc:
        probe = {"Nats-Msg-Id": nc.new_inbox()}
        answer = await nc.request("rounds.probe", b'{"round_id":0}', headers=probe)
        assert not msgspec.json.decode(answer.data).get("duplicate")
        while True:
            answer = await nc.request("rounds.probe", b'{"round_id":0}', headers=probe)
            if not msgspec.json.decode(answer.data).get("duplicate"):
                return


def without_probes(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [item for item in found if item[0] != "rounds.probe"]


async def test_everything_is_stored_in_order_and_confirmed(nats: NatsServer) -> None:
    """The plain case: each game in the source's order, the last offset confirmed, the numbers right."""
    source = Source(5000)
    publishing = publisher(nats.url, source)

    await publishing.run(source.read())

    assert_log_is(await stored(nats), source.rounds)
    assert source.confirmed == sorted(source.confirmed)
    assert source.confirmed[-1] == 5000
    stats = publishing.stats
    assert (stats.read, stats.acked, stats.duplicates, stats.rejected, stats.in_flight) == (5000, 5000, 0, 0, 0)


async def test_server_killed_again_and_again_mid_stream_loses_and_doubles_nothing(nats: NatsServer) -> None:
    """kill -9 with rounds in flight: what was unacked is sent again in order, once."""
    source = Source(30_000)
    publishing = publisher(nats.url, source, max_in_flight=2000)
    running = asyncio.create_task(publishing.run(source.read()))

    for offset in (3000, 9000, 15_000):
        await source.confirmed_to(offset)
        await nats.kill()
        await nats.start()
    await running

    assert_log_is(await stored(nats), source.rounds)
    assert source.confirmed == sorted(source.confirmed)
    assert source.confirmed[-1] == 30_000
    assert publishing.stats.reconnects >= 3


async def test_error_acks_in_the_middle_of_the_pipeline_keep_each_games_order(tmp_path: Path) -> None:
    """A server that refuses a publish and stores the next one (its buffer was full) must not reverse their order."""
    server = NatsServer(tmp_path, config="jetstream { max_buffered_msgs: 50 }")
    await server.start()
    try:
        source = Source(3000)
        publishing = publisher(server.url, source)
        await publishing.run(source.read())
        assert publishing.stats.resent > 0
        assert_log_is(await stored(server), source.rounds)
        assert source.confirmed[-1] == 3000
    finally:
        await server.kill()


async def test_restart_beyond_the_duplicate_window_stores_nothing_twice(nats: NatsServer) -> None:
    """A crash before anything was confirmed: the source redelivers everything, long after the duplicate window."""
    first = Source(2000)
    await publisher(nats.url, first, window_s=_SHORT_WINDOW_S).run(first.read())
    await duplicate_window_passed(nats)

    # Round ids in another order than they were committed in: what counts is the id, not its size.
    again = Source(2500)
    again.rounds[:2000] = [*again.rounds[1000:2000], *again.rounds[:1000]]
    publishing = publisher(nats.url, again, window_s=_SHORT_WINDOW_S)
    await publishing.run(again.read())

    assert_log_is(without_probes(await stored(nats)), [*first.rounds, *again.rounds[2000:]])
    assert again.confirmed[-1] == 2500
    assert (publishing.stats.duplicates, publishing.stats.acked) == (2000, 500)


async def test_tail_with_deleted_rounds_is_still_recognised(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator deleted the newest round: the sequence exists, the round does not, and nothing waits for it."""
    monkeypatch.setattr(roundlog.tail, "_BEHIND_PAUSE_S", 0)
    source = Source(100)
    await publisher(nats.url, source, window_s=_SHORT_WINDOW_S).run(source.read())
    await duplicate_window_passed(nats)
    state = (await api(nats, "STREAM.INFO.ROUNDS"))["state"]
    await api(nats, "STREAM.MSG.DELETE.ROUNDS", {"seq": state["last_seq"]})

    again = Source(100)
    publishing = publisher(nats.url, again, window_s=_SHORT_WINDOW_S)
    await publishing.run(again.read())

    assert publishing.stats.duplicates == 100
    assert again.confirmed[-1] == 100


async def test_acks_lost_for_longer_than_the_duplicate_window_make_no_double(nats: NatsServer) -> None:
    """Stored, but the acks were lost and the duplicate window is over: the ids are read from the log."""
    async with Wire("ingest>nats", lambda: nats.port).listening() as wire:
        source = Source(300, pause_after=100)
        publishing = publisher(wire.url, source, window_s=_SHORT_WINDOW_S)
        running = asyncio.create_task(publishing.run(source.read()))
        await source.confirmed_to(100)
        wire.swallow("back")
        source.resume()
        await wire.swallowed.wait()
        await duplicate_window_passed(nats)
        wire.cut()
        await running

    assert_log_is(without_probes(await stored(nats)), source.rounds)
    assert source.confirmed[-1] == 300
    assert publishing.stats.acked == 300


async def test_log_that_is_full_for_large_rounds_stores_no_later_small_round(nats: NatsServer) -> None:
    """Its stream was edited to refuse rounds at a limit. Order is kept, and all is stored once there is room."""
    source = Source(1000, pause_after=100)
    source.rounds = [make_round(number, extras="x" * 5000 * (number % 7 == 0)) for number in range(1, 1001)]
    publishing = publisher(nats.url, source)
    with captured_events() as events:
        running = asyncio.create_task(publishing.run(source.read()))
        await source.confirmed_to(100)
        size = (await api(nats, "STREAM.INFO.ROUNDS"))["state"]["bytes"]
        before = await edit(nats, {"discard": "new", "max_bytes": size + 50_000})
        source.resume()
        await events.seen("publish_refused")
        assert_log_is(found := await stored(nats), source.rounds[: len(found)])
        await edit(nats, before)
        await running

    assert_log_is(await stored(nats), source.rounds)
    assert source.confirmed[-1] == 1000


async def test_frozen_server_is_given_up_and_used_again_when_it_moves(nats: NatsServer) -> None:
    """Every wait for an ack has a deadline, also on a connection that is open and dead."""
    source = Source(20_000)
    publishing = publisher(nats.url, source, ack_timeout_s=0.3)
    running = asyncio.create_task(publishing.run(source.read()))
    await source.confirmed_to(2000)

    nats.freeze()
    await until(lambda: publishing.stats.reconnects > 0)
    nats.thaw()
    await running

    assert_log_is(await stored(nats), source.rounds)
    assert source.confirmed[-1] == 20_000


async def test_memory_is_bounded_while_the_server_takes_nothing(nats: NatsServer) -> None:
    """At most what may be in flight, and one batch, is read from the source."""
    source = Source(100_000, batch=100)
    publishing = publisher(nats.url, source, max_in_flight=500, ack_timeout_s=0.2)
    running = asyncio.create_task(publishing.run(source.read()))
    await source.confirmed_to(1)
    nats.freeze()
    before = publishing.stats.reconnects
    await until(lambda: publishing.stats.reconnects > before)

    assert publishing.stats.in_flight == 500
    assert source.yielded <= source.confirmed[-1] + 500 + 100

    running.cancel()
    nats.thaw()
    await asyncio.wait([running])


async def test_log_that_is_not_there_yet_is_waited_for(nats: NatsServer) -> None:
    """Containers start in any order."""
    await nats.stop()
    source = Source(100)
    publishing = publisher(nats.url, source)
    running = asyncio.create_task(publishing.run(source.read()))
    await until(lambda: publishing.stats.reconnects > 1)
    assert source.yielded == 0

    await nats.start()
    await running
    assert_log_is(await stored(nats), source.rounds)


async def test_stream_deleted_while_publishing_is_made_again(nats: NatsServer) -> None:
    """What is in flight is sent to the new stream; what was acked before is lost with the old one."""
    source = Source(200, pause_after=100)
    publishing = publisher(nats.url, source)
    running = asyncio.create_task(publishing.run(source.read()))
    await source.confirmed_to(100)
    await api(nats, "STREAM.DELETE.ROUNDS")
    source.resume()
    await running

    assert_log_is(await stored(nats), source.rounds[100:])
    assert source.confirmed[-1] == 200


async def test_stream_of_another_size_is_used(nats: NatsServer) -> None:
    """Its limits are up to the operator."""
    async with connect(LogSettings(url=nats.url), name="operator") as nc:
        await open_log(nc, LogSettings(max_bytes=1 << 30))
    source = Source(10)

    await publisher(nats.url, source).run(source.read())
    assert source.confirmed[-1] == 10


HOSTILE = [".", "*", ">", "", " ", "crash.evil", "crash ", "Crash", "é", "crash\r\nPUB evil 0", "-crash", "x" * 10_000]


async def test_hostile_slugs_and_ids_reach_no_subject_and_stop_nothing(nats: NatsServer) -> None:
    """Only checked slugs and plain numbers get into subjects and headers, whatever a backend yields."""
    rejects = DeadLetters()
    source = Source(2)
    hostile = [make_round(0, game=slug) for slug in HOSTILE]
    injected: Any = "1\r\nNats-Rollup: all"
    hostile += [Round(number, "crash", "x", "", "", 0) for number in (injected, -1, 1 << 63, True)]
    hostile.append(make_round(5, extras="\ud800"))

    async def batches() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        yield [Captured(source.rounds[0], 1)]
        yield [Captured(round_, 10 + at) for at, round_ in enumerate(hostile)]
        yield [Captured(source.rounds[1], 99)]

    publishing = publisher(nats.url, source, rejects)
    await publishing.run(batches())

    assert_log_is(await stored(nats), source.rounds)
    assert (await api(nats, "STREAM.INFO.ROUNDS"))["state"]["num_subjects"] == 2
    assert [item.offset for item in rejects.items] == [10 + at for at in range(len(hostile))]
    assert all(item.reason and len(item.reason) < 300 and len(item.raw) <= 64 << 10 for item in rejects.items)
    assert source.confirmed[-1] == 99
    assert publishing.stats.rejected == len(hostile)


async def test_rejected_items_take_their_turn_in_what_is_confirmed(nats: NatsServer) -> None:
    """A reject at the end of the source is confirmed too, and only after `rejects` has returned."""
    source, rejects = Source(1), DeadLetters()
    bad = Rejected("f.jsonl:2", "not JSON", b"{", 2)

    async def batches() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        yield [Captured(source.rounds[0], 1), bad]

    await publisher(nats.url, source, rejects).run(batches())

    assert rejects.items == [bad]
    assert source.confirmed[-1] == 2


async def test_rejects_that_cannot_be_kept_end_the_run_unconfirmed(nats: NatsServer) -> None:
    """An error of `rejects`, such as a full disk, is neither taken for a lost log nor loses the item."""
    source = Source(1)

    async def full(_: Rejected[Any]) -> None:
        raise OSError("no space left on device")

    async def batches() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        yield [Captured(source.rounds[0], 1), Rejected("k", "r", b"", 2)]

    publishing: Publisher[int] = Publisher(
        LogSettings(url=nats.url), PublisherSettings(), confirm=source.confirm, rejects=full
    )
    with pytest.raises(OSError, match="no space left"):
        await publishing.run(batches())
    assert source.confirmed in ([], [1])


@pytest.mark.parametrize("limited_by", ["stream", "server", "stream-later"])
async def test_round_over_the_size_limit_is_rejected_and_the_flow_goes_on(tmp_path: Path, limited_by: str) -> None:
    """It would always fail; it is rejected with its size and the limit, and the rest keeps its order."""
    server = NatsServer(tmp_path, config="max_payload: 8192" if limited_by == "server" else "")
    await server.start()
    try:
        async with connect(LogSettings(url=server.url), name="operator") as nc:
            await open_log(nc, LogSettings())
        config = (await api(server, "STREAM.INFO.ROUNDS"))["config"]
        limit = {"max_msg_size": 8192}
        if limited_by == "stream":
            await api(server, "STREAM.UPDATE.ROUNDS", config | limit)
        source, rejects = Source(300), DeadLetters()
        large = make_round(1000, "crash", '{"note":"%s"}' % ("x" * 9000))
        batches = [source.rounds[:100], [large, *source.rounds[100:200]], source.rounds[200:]]

        async def read() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
            for number, batch in enumerate(batches):
                yield [Captured(round_, round_.round_id) for round_ in batch]
                if number == 0:
                    await source.confirmed_to(100)
                    if limited_by == "stream-later":
                        await api(server, "STREAM.UPDATE.ROUNDS", config | limit)

        publishing = publisher(server.url, source, rejects)
        await publishing.run(read())

        assert_log_is(await stored(server), source.rounds)
        (item,) = rejects.items
        assert item.key == "crash:1000"
        assert item.reason.startswith(f"round has {len(large.to_json())} bytes; ")
        assert item.raw == large.to_json()
        assert source.confirmed[-1] == 300
    finally:
        await server.kill()


async def test_failing_source_ends_the_run_after_what_it_yielded_is_stored(nats: NatsServer) -> None:
    """The source's error is raised; what it yielded before is in the log and confirmed."""
    source = Source(500)

    async def batches() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        async for batch in source.read():
            yield batch
        raise SourceError("f.jsonl:501: not JSON")

    with pytest.raises(SourceError, match=r"f\.jsonl:501"):
        await publisher(nats.url, source).run(batches())

    assert_log_is(await stored(nats), source.rounds)
    assert source.confirmed[-1] == 500


async def test_cancelled_run_confirms_what_was_acked_and_the_rest_comes_again(nats: NatsServer) -> None:
    """Stop and start: no round is lost between the two runs, none is stored twice."""
    source = Source(50_000)
    running = asyncio.create_task(publisher(nats.url, source).run(source.read()))
    await source.confirmed_to(5000)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    rest = Source(20_000 - source.confirmed[-1], start=source.confirmed[-1] + 1)
    await publisher(nats.url, rest).run(rest.read())
    assert_log_is(await stored(nats), source.rounds[:20_000])


async def test_cancelled_run_does_not_wait_for_a_frozen_server(nats: NatsServer) -> None:
    """Stopping has a deadline too."""
    source = Source(50_000)
    running = asyncio.create_task(publisher(nats.url, source, leave_s=0.1).run(source.read()))
    await source.confirmed_to(1)
    nats.freeze()
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([running])
    assert running.cancelled()
    nats.thaw()


async def test_another_publisher_on_the_log_disturbs_neither(nats: NatsServer) -> None:
    """Two ingests with games of their own share a stream; each keeps its games' order."""
    ours, theirs = Source(5000), Source(5000, start=10_001)
    theirs.rounds = [make_round(round_.round_id, f"{round_.game_slug}-2") for round_ in theirs.rounds]
    one, other = publisher(nats.url, ours), publisher(nats.url, theirs)

    await asyncio.gather(one.run(ours.read()), other.run(theirs.read()))

    assert_log_is(await stored(nats), [*ours.rounds, *theirs.rounds])
    assert (ours.confirmed[-1], theirs.confirmed[-1]) == (5000, 15_000)


async def test_two_publishers_of_the_same_rounds_store_each_once_in_order(nats: NatsServer) -> None:
    """A takeover while the old leader still publishes."""
    old, new = Source(5000), Source(5000)
    one, other = publisher(nats.url, old), publisher(nats.url, new)

    await asyncio.gather(one.run(old.read()), other.run(new.read()))

    assert_log_is(await stored(nats), new.rounds)
    assert (old.confirmed[-1], new.confirmed[-1]) == (5000, 5000)
    assert one.stats.acked + other.stats.acked == 5000


async def test_confirm_lag_holds_positions_back(nats: NatsServer) -> None:
    """Within the lag nothing is confirmed, since a power failure could still lose it."""
    source = Source(500)
    await publisher(nats.url, source, confirm_lag_s=60).run(source.read())
    assert source.confirmed == []

    again = Source(500)
    gate = asyncio.Event()

    async def batches() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        async for batch in again.read():
            yield batch
        await gate.wait()

    running = asyncio.create_task(publisher(nats.url, again, confirm_lag_s=0.05).run(batches()))
    await again.confirmed_to(500)
    gate.set()
    await running
    assert_log_is(await stored(nats), source.rounds)
