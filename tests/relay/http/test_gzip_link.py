"""Compressed event streams: what a client decodes is what other clients get, and ends as gzip does."""

import asyncio
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.http.sse.gzip_link import GzipSseLink
from relay.http.sse.sse_client import PlaceForm, SseClient
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.compression.checksum import Checksum
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.item import Item
from relay.live.link import CloseReason
from relay.live.ring import Ring
from relay.live.stored import joined
from roundlog.entry import LogEntry
from rounds import Filter, Round
from tests.relay.live.recording_link import RecordingTransport
from tests.relay.raw_http import unchunked

GAMES = ("crash", "dice")
CLIENTS = (
    SseClient(PlaceForm.LINE, True, None, None),
    SseClient(PlaceForm.BLOCK, True, None, None),
    SseClient(PlaceForm.EVENT, False, 1.0, True),
)


FLUSH = b"\x00\x00\xff\xff"
KINDS = ("open", "join", "join", "publish", "publish", "publish", "heartbeat", "event", "past", "end")


class Transport(RecordingTransport):
    """Keeps what is written, and whether it was closed."""

    def close(self) -> None:
        self.aborted.set()


class Reader:
    """One link, and a decoder that is given what comes at once."""

    def __init__(self, site: "Site", client: SseClient, *, chunked: bool) -> None:
        self.transport = Transport()
        self.chunked = chunked
        self.link = GzipSseLink(self.transport, client, site.ender, chunked=chunked, max_age_s=60)  # type: ignore[arg-type]
        self.expected: list[bytes] = []
        self.text = b""
        self._read = 0
        self.inflater = zlib.decompressobj(wbits=31)

    def read(self) -> None:
        """Decode what was written since the last call: each write can be decoded to its end."""
        for write in self.transport.writes[self._read :]:
            body = unchunked(write)[0] if self.chunked else write
            self.text += self.inflater.decompress(body)
            assert self.inflater.eof or body.endswith(FLUSH)
        self._read = len(self.transport.writes)

    def blocks(self) -> list[bytes]:
        """The rounds and gaps in the text, in order."""
        lines = self.text.split(b"\n")
        return [line for line in lines if line.startswith(b"data: ") and b'"event":"cursor"' not in line]


class Site:
    """A hub and its links."""

    def __init__(self) -> None:
        self.hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1 << 20)
        self.hub.begin(Bounds("k1", 1, 0))
        self.ender = Ender(self.hub, ReconnectDelays(0), linger_s=60)
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []
        self.games: dict[Reader, str] = {}

    def open(self, which: int) -> None:
        reader = Reader(self, CLIENTS[which % 3], chunked=which % 4 != 3)
        reader.link.cursor = lambda: self.hub.head
        reader.link.begin(2000, str(self.hub.head))
        self.readers.append(reader)
        self.games[reader] = GAMES[which % 2]

    async def publish(self, game: str, count: int) -> None:
        entries = [entry(self.hub.head.sequence + 1 + number, game) for number in range(count)]
        self.hub.publish(entries)
        await asyncio.sleep(0)
        for reader in self.readers:
            if reader.link.stream is not None and self.games[reader] == game:
                reader.expected += map(data_of, entries)

    async def do(self, what: str, which: int, count: int) -> None:
        if what == "open":
            self.open(which)
        elif what == "publish":
            await self.publish(GAMES[which % 2], count)
        elif self.readers:
            await self.do_to(self.readers[which % len(self.readers)], what, count)

    async def do_to(self, reader: Reader, what: str, count: int) -> None:
        link = reader.link
        if what == "heartbeat":
            reader.read()
            before = reader.text.count(b":\n")
            for other in self.readers:
                if other.link.form == link.form:
                    other.link.heartbeat()
            reader.read()
            assert reader.text.count(b":\n") == before + 1
        elif what == "event":
            link.send_event({"event": "gap", "number": count})
            reader.expected.append(b'data: {"event":"gap","number":%d}' % count)
        elif what == "join" and link.stream is None:
            self.hub.add(link, Subscription(frozenset([self.games[reader]]), Filter()))
        elif what == "past":
            items = [Item("k1", entry(number, self.games[reader])) for number in range(count)]
            written = joined(link.form, [item.rendered(link.form) for item in items])
            link.write_past(written.data, written.checksum)
            reader.expected += [b"data: " + item.json for item in items]
        elif what == "end":
            self.end(reader)

    def end(self, reader: Reader) -> None:
        self.readers.remove(reader)
        self.gone.append(reader)
        reader.link.end(CloseReason.DRAINING)


def entry(sequence: int, game: str) -> LogEntry:
    round_ = Round.make(
        round_id=sequence,
        game_slug=game,
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras=f'{{"point":"{sequence * 7919 % 1000}.00"}}',
        timestamp=1737194400000,
    )
    return LogEntry(sequence, game, round_.to_json())


def data_of(entry_: LogEntry) -> bytes:
    return b"data: " + Item("k1", entry_).json


@settings(max_examples=20)
@given(st.integers(0, 1 << 32))
def test_every_client_decodes_what_was_written_to_it(seed: int) -> None:
    """In any order of joins, rounds, comments, events, replays and ends; at an end the checksum and the length fit."""
    chance = random.Random(seed)

    async def run() -> None:
        site = Site()
        for what in ["open", "join", *chance.choices(KINDS, k=chance.randrange(10, 80))]:
            await site.do(what, chance.randrange(12), chance.choice((1, 1, 2, 5, 70)))
        for reader in list(site.readers):
            site.end(reader)
        for reader in site.gone:
            reader.read()
            assert reader.blocks() == reader.expected
            whole = reader.link._client.clean_end or not reader.chunked
            assert (reader.inflater.eof, reader.inflater.unused_data) == (whole, b"")
            assert reader.transport.writes[-1].endswith(b"0\r\n\r\n") == (whole and reader.chunked)

    asyncio.run(run())


async def test_comments_put_no_link_out_of_step() -> None:
    """The heartbeats of a hundred links are one comment for all of them: rounds stay small."""
    site = Site()
    for _ in range(100):
        site.open(0)
        site.hub.add(site.readers[-1].link, Subscription(frozenset(["crash"]), Filter()))
    sizes = []
    for number in range(200):
        await site.publish("crash", 1)
        sizes.append(len(site.readers[0].transport.writes[-1]))
        site.readers[number % 100].link.heartbeat()

    assert max(sizes[1:]) < 50
    assert [reader.transport.writes[-250:] for reader in site.readers[1:]] == [
        site.readers[0].transport.writes[-250:]
    ] * 99
    site.readers[0].read()
    assert site.readers[0].text.count(b":\n") == 3  # at the start, and at both of its own heartbeats


async def test_others_get_a_comment_when_the_link_that_wrote_them_leaves() -> None:
    """They were silent at their own heartbeats, and the next one may be 14 s away."""
    site = Site()
    for _ in range(3):
        site.open(0)
        site.hub.add(site.readers[-1].link, Subscription(frozenset(["crash"]), Filter()))
    first, second, third = site.readers
    for reader in site.readers:
        reader.link.heartbeat()
    stream = second.link.stream
    assert stream is not None
    assert stream.comments is not None
    stream.comments._written_at -= 5
    site.end(first)
    await asyncio.sleep(0)
    third.link.heartbeat()
    for reader in (second, third):
        reader.read()
        assert reader.text.count(b":\n") == 4


async def test_links_share_what_is_compressed_for_one_alone() -> None:
    """A compressor of its own would cost each link 128 KB."""
    site = Site()
    for which in range(12):
        site.open(which)

    assert len({id(reader.link.form._apart) for reader in site.readers}) == 2  # in chunks, and not


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1 << 20, (1 << 32) + 5])
def test_checksum_of_a_shared_part(size: int) -> None:
    """As zlib has it, and of parts that are larger than is read here: twice a half is the whole."""
    begin, own = Checksum().with_data(b"before"), Checksum().with_data(b"mine")
    if size <= 1 << 20:
        part = random.Random(size).randbytes(size)
        assert own.with_part(begin, begin.with_data(part)) == own.with_data(part)
    half, rest = begin._replace(size=begin.size + size // 2), begin._replace(size=begin.size + size)
    assert own.with_part(begin, half).with_part(half, rest) == own.with_part(begin, rest)


def test_trailer_has_the_length_modulo_4_gib() -> None:
    """RFC 1952 section 2.3.1."""
    assert Checksum(1, (1 << 32) + 7).trailer() == b"\1\0\0\0\7\0\0\0"
