"""Links that share a window read what was written, in any order of joins, writes of their own and shared ones."""

import asyncio
import itertools
import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate

from relay.live.channels import Channels, Subscription
from relay.live.compression.shared_stream import SharedStream, Windows
from relay.live.compression.websocket_window import WebSocketWindow
from relay.live.encode import frame
from relay.usage.account import Account
from rounds import Filter
from tests.relay.live.compression.inflating import read_frames
from tests.relay.live.recording_link import RecordingLink

BITS = (9, 10, 12, 15)
EVENT = b'{"event":"pong"}'


def text_of(number: int) -> bytes:
    """A round; every seventh is larger than the smallest windows, and does not repeat itself."""
    noise = b"".join(b"%x" % (number * 7919**at % 1009) for at in range(1, 200 if number % 7 == 0 else 8))
    return b'{"round_id":%d,"game_slug":"crash","extras":"%b","cursor":"k3f9a2-%d"}' % (number, noise, number)


class Reader:
    """A client: what it was sent, and its standard inflater, which keeps the window that was agreed on."""

    def __init__(self, link: RecordingLink, bits: int) -> None:
        self.link = link
        self.bits = bits
        self.expected: list[bytes] = []
        self.account = link.account = Account("key")

    def read(self) -> list[bytes]:
        inflater = PerMessageDeflate(False, True, self.bits, 15)
        return read_frames(b"".join(self.link.recorder.writes), [inflater])


class Relay:
    """Channels of one form for each window size, and their links."""

    def __init__(self) -> None:
        self.channels = Channels()
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []
        self.forms = {bits: WebSocketWindow(bits) for bits in BITS}
        self.number = 0

    def rounds(self, count: int) -> list[bytes]:
        self.number += count
        return [text_of(number) for number in range(self.number - count, self.number)]

    def join(self, bits: int, game: str) -> None:
        reader = Reader(RecordingLink(self.forms[bits]), bits)
        self.readers.append(reader)
        self.channels.add(reader.link, subscription(game))

    def publish(self, game: str, count: int) -> None:
        rounds = self.rounds(count)
        for channel in self.channels.plain(game):
            writes = channel.writes(rounds)
            channel.count(rounds, writes)
            for links, data in writes:
                for link in links:
                    link.transport.write(data)
            for reader in self.readers:
                if reader.link in list(channel.links):
                    reader.expected += rounds

    def do(self, what: str, which: int, count: int) -> None:
        game = ("crash", "dice")[which % 2]
        if what == "join":
            self.join(BITS[which % 4], game)
        elif what == "publish":
            self.publish(game, count)
        elif self.readers:
            reader = self.readers[which % len(self.readers)]
            if what == "leave":
                self.readers.remove(reader)
                self.gone.append(reader)
                self.channels.remove(reader.link)
            elif what == "move":
                self.channels.add(reader.link, subscription(game))
            elif what == "past":
                rounds = self.rounds(count)
                reader.expected += rounds
                reader.link.write_past(reader.link.form.join(rounds))
            else:
                reader.expected.append(EVENT)
                reader.link.transport.write(frame(EVENT))


def subscription(*games: str) -> Subscription:
    return Subscription(frozenset(games), Filter())


KINDS = ("join", "publish", "publish", "publish", "leave", "move", "past", "event")


@settings(max_examples=25)
@given(st.integers(0, 1 << 32))
def test_every_link_reads_what_was_written_to_it(seed: int) -> None:
    """By the inflater that its window size asks for; a link that is written rounds alone is in no other's way."""
    chance = random.Random(seed)

    async def run() -> None:
        relay = Relay()
        for what in ["join", "join", *chance.choices(KINDS, k=chance.randrange(10, 80))]:
            relay.do(what, chance.randrange(8), chance.choice((1, 1, 2, 5, 70)))
        for reader in relay.readers + relay.gone:
            assert reader.read() == reader.expected

    asyncio.run(run())


def test_account_has_the_bytes_of_what_its_links_read() -> None:
    """As without compression, whether or not they are in step with the rest of their channel."""

    async def run() -> None:
        relay = Relay()
        for _ in range(5):
            relay.join(9, "crash")
        for number in range(40):
            if number % 10 == 3:
                relay.join(9, "crash")
            relay.publish("crash", 1 + number % 2)
        for tally in relay.channels.tallies:
            tally.settle()
        for reader in relay.readers:
            assert reader.account.bytes == sum(len(frame(text)) for text in reader.expected)

    asyncio.run(run())


def test_round_in_a_stream_is_a_fifth_of_its_size() -> None:
    """Rounds of all games in turn: at most 30 bytes each when nobody joins, of 190."""
    sizes = sizes_of_writes(joins_per_round=0)

    assert sum(sizes[:100]) / 100 < 40
    assert sum(sizes[100:]) / len(sizes[100:]) < 30


def test_steady_joins_leave_the_window_useful() -> None:
    """Ten links a round join a channel of 1,000: those in step still get small rounds, for 64 rounds at a time."""
    sizes = sizes_of_writes(joins_per_round=10)

    assert sum(sizes[100:]) / len(sizes[100:]) < 50


def test_link_that_joins_is_soon_in_step() -> None:
    """When few links are in step, the window is emptied at the next write; when many are, after 64 rounds at most."""

    async def run() -> None:
        for others, least, most in ((1, 0, 1), (200, 40, 70)):
            relay = Relay()
            for _ in range(others):
                relay.join(15, "crash")
            relay.publish("crash", 1)
            relay.join(15, "crash")
            for _ in range(100):
                relay.publish("crash", 1)
            first, last = (reader.link.recorder.writes for reader in (relay.readers[0], relay.readers[-1]))
            apart = [mine for mine, others_ in zip(last, first[1:], strict=True) if mine != others_]
            assert least <= len(apart) <= most

    asyncio.run(run())


def test_windows_are_bounded_and_go_to_the_channels_with_most_links() -> None:
    """A channel without one gets rounds that depend on nothing, and that it shares with other such channels."""

    async def run() -> None:
        relay = Relay()
        for number in range(200):
            relay.channels.add(RecordingLink(relay.forms[15]), subscription(f"game-{number}"))
        rounds = relay.rounds(2)
        channels = [channel for number in range(200) for channel in relay.channels.plain(f"game-{number}")]
        written = [channel.writes(rounds)[0].data for channel in channels]
        assert len(set(written[:32])) == 1
        assert written[32:] == [relay.forms[15].each(rounds)] * 168
        for _ in range(5):
            relay.join(15, "game-150")
        for _ in range(300):
            data = channels[150].writes(rounds)[0].data
        assert data != relay.forms[15].each(rounds)

    asyncio.run(run())


def sizes_of_writes(*, joins_per_round: int) -> list[int]:
    """Publish 400 rounds to a channel of 1,000 links; return the sizes of those of a link that is in step."""
    form, windows, sizes = WebSocketWindow(15), Windows(), []
    stream = SharedStream[RecordingLink](form, windows)

    async def run() -> None:
        links = [RecordingLink(form) for _ in range(1000)]
        for link in links:
            stream.join(link)
        for item in itertools.islice(all_games(), 400):
            in_step, data = stream.writes([item], links)[0]
            assert links[0] in in_step[:1]
            sizes.append(len(data))
            for _ in range(joins_per_round):
                link = RecordingLink(form)
                links.append(link)
                stream.join(link)
                gone = links.pop(1)
                stream.leave(gone)

    asyncio.run(run())
    return sizes


def all_games() -> Iterator[bytes]:
    """Rounds of 14 games in turn, as a relay serves them."""
    for number in itertools.count():
        second, point = number % 60, 1000 * 7919**3 // (number * 6389 % 7919 + 1) % 1000
        yield (
            b'{"round_id":%d,"game_slug":"game-%d","game_type":"multiplier","finished_at":"2026-01-18T10:%02d:%02dZ",'
            b'"extras":"{\\"point\\":\\"%d.%02d\\"}","timestamp":%d,"cursor":"k3f9a2-%d"}'
        ) % (
            67890 + number,
            number % 14,
            number // 60 % 60,
            second,
            point // 100 + 1,
            point % 100,
            1737194400001 + number * 1000,
            1042 + number,
        )
