"""``python -m bench.filters [LINKS]``: what links with a filter each cost a burst, beside links that share one.

CPU of a hub in this process for bursts of 100 rounds of one game, with links that drop what is written: no client and
no kernel disturbs the ratio.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Final

import uvloop

from bench._report import heading, table
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.encode import WebSocketText
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, Link
from relay.live.ring import Ring
from roundlog.entry import LogEntry
from rounds import Filter, Round

_GAME: Final = "dice"
_BURST: Final = 100
_BURSTS: Final = 30
_REPEATS: Final = 5


class _Sink(asyncio.WriteTransport):
    """Drops what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class _Ender:
    def end(self, link: Link, reason: CloseReason) -> None:
        raise AssertionError(f"a link was ended: {reason}")

    def cut(self, link: Link, reason: CloseReason) -> None:
        raise AssertionError(f"a link was cut: {reason}")


class _DroppingLink(Link):
    def __init__(self) -> None:
        super().__init__(_Sink(), WebSocketText(), _Ender(), max_age_s=3600, drain=_nothing)

    def heartbeat(self) -> bool:
        return True

    def send_event(self, event: Mapping[str, object]) -> None:
        pass

    def write_disconnect(self, disconnect: Disconnect) -> None:
        pass


async def _nothing() -> None:
    pass


async def _burst_ms(filters: list[Filter], points: int) -> tuple[float, float]:
    """Return the CPU of one burst in milliseconds, and its deliveries; its rounds have points from 0 to `points`."""
    hub = Hub(Ring(rounds_per_game=500, bytes_per_game=1 << 20), unsent_bytes=1 << 20)
    hub.begin(Bounds("bench", 1, 0))
    links = [_DroppingLink() for _ in filters]
    for link, filter_ in zip(links, filters, strict=True):
        hub.add(link, Subscription(frozenset({_GAME}), filter_))
    bursts = [[_entry(at + n, points) for n in range(_BURST)] for at in range(1, _BURSTS * _BURST, _BURST)]
    before_s = time.process_time()
    for burst in bursts:
        hub.publish(burst)
        for _ in range(4):  # what comes after the first round of a turn, and slices
            await asyncio.sleep(0)
    return 1000 * (time.process_time() - before_s) / _BURSTS, hub.stats.deliveries / _BURSTS


def _entry(sequence: int, points: int) -> LogEntry:
    round_ = Round.make(
        round_id=sequence,
        game_slug=_GAME,
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras=f'{{"point":"{sequence * 7919 % points}.50"}}',
        timestamp=1768730430000,
    )
    return LogEntry(sequence, _GAME, round_.to_json())


async def main(count: int) -> None:
    heading(f"{count} filters", f"python -m bench.filters {count}")
    few = [Filter.build(min_point=str(number), max_point=str(number + 1)) for number in range(count)]
    every = [Filter.build(min_point=f"-{number}") for number in range(count)]
    cases = {
        "one link, of which one round in ten matches": (few[:1], 10),
        f"{count} links that share that filter": (few[:1] * count, 10),
        f"{count} filters, each round matches one": (few, count),
        f"{count} links that share a filter that all rounds match": (every[:1] * count, count),
        f"{count} filters that all rounds match": (every, count),
    }
    rows, first_ms = [], 0.0
    for name, (filters, points) in cases.items():
        used_ms, deliveries = min([await _burst_ms(filters, points) for _ in range(_REPEATS)])
        first_ms = first_ms or used_ms
        rows.append([name, f"{used_ms:.2f} ms", f"{used_ms / first_ms:.1f}", f"{deliveries:,.0f}"])
    table([f"CPU for a burst of {_BURST} rounds", "", "times the first", "deliveries"], rows)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
