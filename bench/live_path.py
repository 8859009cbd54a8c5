"""``python -m bench.live_path``: two ways for relays to follow the log live, measured against a real nats-server.

The stream's `republish` with plain core subscriptions, and the ordered consumers of nats-py. Results and conclusions:
docs/adr/0002-republish-for-live.md.
"""

import asyncio
import itertools
import time
from contextlib import suppress
from typing import Final

import nats
import uvloop
from nats.aio.client import Client
from nats.errors import Error as NatsError

from bench._followers import MANY, WAYS, Follow, Repaired, make_stream, ordered, ordered_per_game
from bench._nats import NatsServer
from bench._process import cpu_s, rss_bytes
from bench._receiver import receiver
from bench._report import heading, percentile, table
from bench._rounds import endless
from rounds import Catalogue, dedup_id, log_subject

_COMMAND: Final = "python -m bench.live_path"
_RATES: Final = (100, 1000)
_SPAN_S: Final = 5
_SUBSCRIBERS: Final = 200
_PENDING_LIMIT: Final = 50
_BURST: Final = 310
_AFTER: Final = 10
_PATIENCE_S: Final = 30.0
_RETRY_S: Final = 0.05
_REPUBLISHED: Final = next(iter(WAYS))


async def main() -> None:
    parts = {
        "latency and CPU, one follower": steady,
        f"{_SUBSCRIBERS} followers": crowd,
        "order under 14 concurrent publishers": order,
        f"{_BURST} rounds into a pending limit of {_PENDING_LIMIT}, then {_AFTER} more": overflow,
        "nats-server killed with -9 and restarted while rounds are published": crash,
    }
    for title, part in parts.items():
        heading(f"Live path: {title}", _COMMAND)
        await part()


# --- steady state ------------------------------------------------------------------------------------------------


async def steady() -> None:
    """Publish-to-receive latency, and CPU per round, at steady rates."""
    rows = []
    for rate in _RATES:
        count = rate * _SPAN_S
        with NatsServer() as server:
            nc = await nats.connect(server.url)
            await make_stream(nc, republished=False)
            before_s = cpu_s(server.pid)
            await publish(nc, rate=rate, count=count)
            rows.append(["no follower", f"{rate}/s", "", "", "", _us(cpu_s(server.pid) - before_s, count)])
            await nc.close()
        for way in WAYS:
            with NatsServer() as server:
                nc = await nats.connect(server.url)
                await make_stream(nc, republished=way == _REPUBLISHED)
                with receiver(server.url, way) as follower:
                    follower.expect(rate)  # warm
                    await publish(nc, rate=rate, count=rate)
                    follower.received()
                    follower.expect(count)
                    before_s = cpu_s(server.pid)
                    sent = await publish(nc, rate=rate, count=count)
                    got = follower.received()
                    server_s = cpu_s(server.pid) - before_s
                await nc.close()
                assert sorted(seq for seq, _ in got.arrivals) == list(range(rate + 1, rate + count + 1)), "rounds lost"
                waits_ms = [1000 * (at - sent[sequence - rate - 1]) for sequence, at in got.arrivals]
                p50, p99 = (f"{percentile(waits_ms, share):.2f} ms" for share in (0.5, 0.99))
                rows.append([way, f"{rate}/s", p50, p99, _us(got.cpu_s, count), _us(server_s, count)])
    table(["", "rate", "latency p50", "p99", "client CPU per round", "nats-server CPU per round"], rows)


async def publish(nc: Client, *, rate: int, count: int) -> list[float]:
    """Publish at a steady rate; return when each was handed to the connection (monotonic seconds)."""
    sent = []
    start = time.monotonic()
    for number, round_ in zip(range(count), endless(), strict=False):
        ahead_s = start + number / rate - time.monotonic()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        sent.append(time.monotonic())
        await nc.publish(log_subject(round_.game_slug), round_.to_json())
    await nc.flush()
    return sent


async def crowd() -> None:
    """What many relays cost the server: state, memory, CPU."""
    rate, count = 100, 100 * _SPAN_S
    rows = []
    for way in WAYS:
        with NatsServer() as server:
            nc = await nats.connect(server.url)
            await make_stream(nc, republished=way == _REPUBLISHED)
            before_bytes = rss_bytes(server.pid)
            started = time.monotonic()
            with receiver(server.url, way, connections=_SUBSCRIBERS) as followers:
                setup_s = time.monotonic() - started
                grown_bytes = rss_bytes(server.pid) - before_bytes
                consumers = (await nc.jetstream().stream_info("ROUNDS")).state.consumer_count
                followers.expect(count * followers.following)
                before_s = cpu_s(server.pid)
                sent = await publish(nc, rate=rate, count=count)
                got = followers.received()
                server_s = cpu_s(server.pid) - before_s
            await nc.close()
        waits_ms = [1000 * (at - sent[sequence - 1]) for sequence, at in got.arrivals]
        rows.append(
            [
                way,
                f"{followers.following} of {_SUBSCRIBERS}",
                str(consumers),
                f"{grown_bytes / 2**20:.0f} MB",
                f"{setup_s:.1f} s",
                _us(server_s, count),
                f"{percentile(waits_ms, 0.99):.1f} ms",
                f"{len(got.arrivals)} of {count * followers.following}",
            ]
        )
    header = [
        "",
        "followers",
        "consumers in the server",
        "memory",
        "time to subscribe",
        "nats-server CPU per round",
        "latency p99",
    ]
    table([*header, f"delivered at {rate}/s"], rows)


# --- order -------------------------------------------------------------------------------------------------------


async def order() -> None:
    """Check that one wildcard subscription receives the sequences of concurrent publishers without a hole."""
    each = 2000
    slugs = sorted(Catalogue.load().slugs)
    total = each * len(slugs)
    with NatsServer() as server:
        nc = await nats.connect(server.url)
        await make_stream(nc, republished=True)
        seen: list[int] = []
        complete = asyncio.Event()

        def on_round(sequence: int, _now: float) -> None:
            seen.append(sequence)
            if len(seen) == total:
                complete.set()

        await WAYS[_REPUBLISHED](nc, on_round, MANY)

        async def hammer(slug: str) -> None:
            own = await nats.connect(server.url)
            for round_ in _of_one_game(each):
                await own.publish(log_subject(slug), round_)
            await own.close()

        await asyncio.gather(*map(hammer, slugs))
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await complete.wait()
        await nc.close()
    steps = sum(after == before + 1 for before, after in itertools.pairwise(seen))
    table(
        ["", "stored", "received", "steps of exactly 1"],
        [["republish, one wildcard subscription", str(total), str(len(seen)), f"{steps} of {total - 1}"]],
    )


def _of_one_game(count: int) -> list[bytes]:
    return [round_.to_json() for _, round_ in zip(range(count), endless(), strict=False)]


# --- faults ------------------------------------------------------------------------------------------------------


class Faults:
    """What a follower received through a fault, compared with the log and with its own sequences."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.errors = 0
        self._arrived = asyncio.Event()

    def on_round(self, sequence: int, _now: float) -> None:
        self.seen.append(sequence)
        self._arrived.set()

    async def on_error(self, _error: Exception) -> None:
        self.errors += 1

    async def until(self, sequence: int, patience_s: float) -> float | None:
        """Seconds until `sequence`, or one after it, has come; None after `patience_s`."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(patience_s):
                while not self.seen or max(self.seen) < sequence:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return time.monotonic() - started

    async def until_complete(self, count: int, patience_s: float) -> float | None:
        """Seconds until `count` different rounds have come; None after `patience_s`."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(patience_s):
                while len(set(self.seen)) < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return time.monotonic() - started

    def verdict(self, count: int) -> list[str]:
        doubled = len(self.seen) - len(set(self.seen))
        swapped = sum(after < before for before, after in itertools.pairwise(self.seen))
        return [f"{len(set(self.seen))} of {count}", str(doubled), str(swapped)]


async def overflow() -> None:
    """A burst that overflows the client's queue: what is dropped, what is reported, what is recovered."""
    rows = []
    ways: list[tuple[str, Follow | None]] = [("republish, repaired from the log", None), *list(WAYS.items())[1:2]]
    for name, follow in ways:
        with NatsServer() as server:
            faults = Faults()
            publisher = await nats.connect(server.url)
            await make_stream(publisher, republished=follow is None)
            nc = await nats.connect(server.url, error_cb=faults.on_error)
            repair = await _start(nc, faults, follow, _PENDING_LIMIT)
            await publisher.flush()
            burst = [(log_subject(r.game_slug), r.to_json()) for r, _ in zip(endless(), range(_BURST), strict=False)]
            for subject, data in burst:
                await publisher.publish(subject, data)
            await publisher.flush()
            await faults.until(_BURST, 2)
            started = time.monotonic()
            for subject, data in burst[:_AFTER]:
                await publisher.publish(subject, data)
            await publisher.flush()
            complete_s = await faults.until_complete(_BURST + _AFTER, 15)
            took = "never" if complete_s is None else f"{1000 * (time.monotonic() - started):.0f} ms"
            rows.append([name, *faults.verdict(_BURST + _AFTER), f"{faults.errors} errors", took])
            await _stop(repair, nc, publisher)
    table(["", "received", "doubled", "out of order", "reported by nats-py", "complete after"], rows)


async def crash() -> None:
    """The server is killed and restarted on its store: how long until rounds arrive, and do all arrive."""
    rows = []
    ways: list[tuple[str, Follow | None]] = [
        ("republish, repaired from the log", None),
        ("one ordered consumer", ordered),
        ("ordered consumer per game", ordered_per_game),
    ]
    for name, follow in ways:
        with NatsServer() as server:
            faults = Faults()
            publisher = await _connect(server.url)
            await make_stream(publisher, republished=follow is None)
            nc = await _connect(server.url, faults)
            repair = await _start(nc, faults, follow, MANY)
            publishing = asyncio.create_task(_publish_until_acked(publisher, 300, rate=100))
            await faults.until(100, 5)
            await asyncio.to_thread(server.kill)
            lost_after = max(faults.seen)
            await asyncio.to_thread(server.start)
            flowing_s = await faults.until(lost_after + 1, _PATIENCE_S)
            await publishing
            stored = (await publisher.jetstream().stream_info("ROUNDS")).state.messages
            complete_s = await faults.until_complete(stored, _PATIENCE_S)
            flow = "never" if flowing_s is None else f"{flowing_s:.2f} s"
            rows.append([name, flow, *faults.verdict(stored), "yes" if complete_s is not None else "no"])
            await _stop(repair, nc, publisher)
    header = ["", "first round after the server is ready", "received", "doubled", "out of order", "complete in the end"]
    table(header, rows)


async def _connect(url: str, faults: Faults | None = None) -> Client:
    async def ignore(_error: Exception) -> None: ...

    on_error = ignore if faults is None else faults.on_error
    return await nats.connect(url, error_cb=on_error, reconnect_time_wait=0.1, max_reconnect_attempts=-1)


async def _start(nc: Client, faults: Faults, follow: Follow | None, limit: int) -> asyncio.Task[None] | None:
    """Start following; None stands for the repaired way, whose repair task is returned."""
    if follow is not None:
        await follow(nc, faults.on_round, limit)
        return None
    repaired = Repaired(nc, faults.on_round, poll_s=1.0)

    async def on_reconnected() -> None:
        repaired.wake()

    nc._reconnected_cb = on_reconnected
    await repaired.start(limit)
    return asyncio.create_task(repaired.run(), name="repair")


async def _stop(repair: asyncio.Task[None] | None, *connections: Client) -> None:
    if repair is not None:
        repair.cancel()
    for nc in connections:
        await nc.close()


async def _publish_until_acked(nc: Client, count: int, *, rate: int) -> None:
    """Publish round after round, each until it is acknowledged: what ingest does, at its simplest."""
    js = nc.jetstream()
    for round_, _ in zip(endless(), range(count), strict=False):
        while True:
            try:
                await js.publish(
                    log_subject(round_.game_slug),
                    round_.to_json(),
                    timeout=1,
                    headers={"Nats-Msg-Id": dedup_id(round_.game_slug, round_.round_id)},
                )
                break
            except (NatsError, TimeoutError, OSError):
                await asyncio.sleep(_RETRY_S)
        await asyncio.sleep(1 / rate)


def _us(seconds: float, count: int) -> str:
    return f"{1e6 * seconds / count:.0f} us"


if __name__ == "__main__":
    uvloop.run(main())
