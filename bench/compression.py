"""``python -m bench.compression [LINKS]``: bytes of a round on the wire, and CPU of a delivery, compressed and not.

Four relays on one core, one for each protocol with and without compression, take turns. Every link's bytes are
decompressed by zlib, as its client would, and compared with what was published.
"""

import itertools
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from bench._nats import NatsServer
from bench._process import allow_files, cpu_s, on_core
from bench._relay import RelayProcess, relay
from bench._report import heading, table
from bench._rounds import endless
from bench.fanout.fleet import Fleet
from bench.fanout.publisher import Publisher
from bench.fanout.wire import EventStream, Rest, Taken, WebSocket, Wire

if TYPE_CHECKING:
    from rounds import Round

_LINKS: Final = 1000
_MOST: Final = 4000
_SLICES: Final = 8
_DELIVERIES: Final = 60_000
"""In a slice."""
_LONGEST_SLICE: Final = 200
_BURST: Final = 100
_BURSTS: Final = 3
"""In a slice."""
_WARM_UP: Final = 100
"""Rounds after which every link is in step."""
_RELAY_CORE: Final = 0
_CLIENT_CORE: Final = 1
_SPARE_FILES: Final = 400
_HEARTBEAT_S: Final = "55"
"""While the others write, no client of a relay answers its pings."""


class CompressedWebSocket(WebSocket):
    """With permessage-deflate, and a client that keeps its window."""

    name = "WebSocket, compressed"

    def request(self, credential: str) -> bytes:
        return super().request(credential)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

    def take(self, rest: Rest, data: bytes) -> Taken:
        decoder = zlib.decompressobj(wbits=-15) if rest.decoder is None else rest.decoder.copy()
        data, plain, start = rest.raw + data, list[bytes](), 0
        while (end := self.message_end(data, start)) is not None:
            frame, start = data[start:end], end
            if frame[0] == 0xC1:
                payload = frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]
                frame = self.framed([decoder.decompress(payload + b"\x00\x00\xff\xff")])
            plain.append(frame)
        taken = super().take(Rest(), b"".join(plain))
        return taken._replace(rest=Rest(raw=data[start:], decoder=decoder))


class CompressedEventStream(EventStream):
    """With gzip."""

    name = "SSE, compressed"

    def request(self, credential: str) -> bytes:
        return super().request(credential)[:-2] + b"Accept-Encoding: gzip\r\n\r\n"

    def opening(self, received: bytes) -> int | None:
        end = received.find(b"\r\n\r\n")
        return None if super().opening(received) is None else end + 4

    def take(self, rest: Rest, data: bytes) -> Taken:
        decoder = zlib.decompressobj(wbits=31) if rest.decoder is None else rest.decoder.copy()
        data, text, start = rest.raw + data, b"", 0
        while (end := self.message_end(data, start)) is not None:
            text += decoder.decompress(data[data.index(b"\r\n", start) + 2 : end - 2])
            start = end
        if text.startswith(b"retry: "):
            text = text.partition(b"\n")[2]
        taken = super().take(Rest(rest.content), b"%x\r\n%b\r\n" % (len(text), text) if text else b"")
        return taken._replace(rest=Rest(taken.rest.content, data[start:], decoder))


class Contender:
    """A relay, its links and what they cost."""

    def __init__(self, process: RelayProcess, publisher: Publisher, fleet: Fleet) -> None:
        self._process, self._publisher, self.fleet = process, publisher, fleet
        self._rounds = endless(first_id=time.time_ns() // 1000)
        self.published: list[Round] = []
        self.sizes: dict[int, list[float]] = {}  # bytes of a round, by rounds at once
        self.rates: dict[int, list[float]] = {}  # deliveries per CPU second

    def run(self, times: int, *, at_once: int) -> None:
        """Publish so many rounds at once, so often; wait each time until every link has them."""
        before_s, received = cpu_s(self._process.pid), self.fleet.received
        for _ in range(times):
            batch = list(itertools.islice(self._rounds, at_once))
            self.published += batch
            self._publisher.publish(batch)
            self.fleet.receive(len(self.published))
        deliveries = times * at_once * len(self.fleet)
        self.sizes.setdefault(at_once, []).append((self.fleet.received - received) / deliveries)
        self.rates.setdefault(at_once, []).append(deliveries / (cpu_s(self._process.pid) - before_s))


@contextmanager
def contender(wire: Wire, count: int) -> Iterator[Contender]:
    """Start a relay with its own log, and its links."""
    with (
        NatsServer() as nats,
        on_core(_RELAY_CORE),
        relay(nats.url, RELAY_LINKS_HEARTBEAT_S=_HEARTBEAT_S) as process,
        on_core(_CLIENT_CORE),
        Publisher(nats.port) as publisher,
    ):
        fleet = Fleet(wire)
        fleet.connect(process.port, count, lambda: wire.request(process.token()))
        yield Contender(process, publisher, fleet)
        fleet.close()


def main(count: int) -> None:
    allow_files(4 * count + _SPARE_FILES)
    heading("Compression", f"python -m bench.compression {count}")
    pairs: list[tuple[Wire, Wire]] = [(WebSocket(), CompressedWebSocket()), (EventStream(), CompressedEventStream())]
    with on_core(_CLIENT_CORE), ExitStack() as stack:
        contenders = [[stack.enter_context(contender(wire, count)) for wire in pair] for pair in pairs]
        race(list(itertools.chain(*contenders)), count)
        rows = [
            [f"{plain.fleet.wire.name}, {count:,} links, {at_once} at once", *row(plain, packed, at_once)]
            for plain, packed in contenders
            for at_once in (1, _BURST)
        ]
    table(["", "bytes a round", "compressed", "deliveries", "compressed", "ratio"], rows)


def race(contenders: list[Contender], count: int) -> None:
    """Have all of them write in turns, and check what their links got."""
    for one in contenders:
        one.run(_WARM_UP, at_once=1)
        one.sizes.clear()
        one.rates.clear()
    for at_once, times in ((1, max(20, min(_LONGEST_SLICE, _DELIVERIES // count))), (_BURST, _BURSTS)):
        for _ in range(_SLICES):
            for one in contenders:
                one.run(times, at_once=at_once)
    for one in contenders:
        one.fleet.check(one.published)


def row(plain: Contender, packed: Contender, at_once: int) -> list[str]:
    """Return the figures of a protocol for so many rounds at once."""
    sizes = [sum(one.sizes[at_once]) / _SLICES for one in (plain, packed)]
    rates = [sum(one.rates[at_once]) / _SLICES for one in (plain, packed)]
    ratio = f"**{rates[1] / rates[0]:.2f}**"
    return [*(f"{size:.1f}" for size in sizes), *(f"{rate:,.0f}/CPU-s" for rate in rates), ratio]


def _count(arguments: list[str]) -> int:
    if not arguments:
        return _LINKS
    if len(arguments) > 1 or not arguments[0].isdecimal() or not 1 <= int(arguments[0]) <= _MOST:
        raise SystemExit(f"{' '.join(arguments)!r} is not a number of links; use one from 1 to {_MOST}")
    return int(arguments[0])


if __name__ == "__main__":
    main(_count(sys.argv[1:]))
