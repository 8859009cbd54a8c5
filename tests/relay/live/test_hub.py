"""The hub: which links get which rounds, in which order, in how many writes. Only transports are simulated."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from relay.live.bounds import Bounds
from relay.live.channels import Channels, Subscription
from relay.live.encode import Renderable, SseBlock, WebSocketText, frame
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, Link
from relay.live.ring import Ring
from relay.live.sending.sends import TransportSends, Unsent
from roundlog.entry import LogEntry
from rounds import Filter, Round
from rounds.filter import Facts
from rounds.round import with_cursor
from tests.relay.live.recording_link import RecordingLink


def round_of(game: str, number: int, extras: str = '{"point":"2.50"}') -> Round:
    return Round.make(
        round_id=number,
        game_slug=game,
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras=extras,
        timestamp=1737194400000,
    )


def entry(sequence: int, game: str = "crash", extras: str = '{"point":"2.50"}') -> LogEntry:
    return LogEntry(sequence, game, round_of(game, sequence, extras).to_json())


def json_of(entry_: LogEntry) -> bytes:
    return with_cursor(entry_.data, f"k1-{entry_.sequence}")


def subscription(*games: str, filter_: Filter | None = None) -> Subscription:
    return Subscription(frozenset(games), filter_ or Filter())


@pytest.fixture
async def hub() -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000)
    hub.begin(Bounds("k1", 1, 0))
    return hub


async def turn(times: int = 1) -> None:
    """Let the loop turn: the hub writes when it does."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_round_reaches_the_links_of_its_game_only(hub: Hub) -> None:
    """A link may subscribe to several games."""
    crash, dice, both = RecordingLink(), RecordingLink(), RecordingLink()
    hub.add(crash, subscription("crash"))
    hub.add(dice, subscription("dice"))
    hub.add(both, subscription("crash", "dice"))

    hub.publish([entry(1, "crash"), entry(2, "dice")])
    await turn()

    first, second = frame(json_of(entry(1, "crash"))), frame(json_of(entry(2, "dice")))
    assert crash.recorder.writes == [first]
    assert dice.recorder.writes == [second]
    assert both.recorder.writes == [first + second]


async def test_first_round_leaves_at_once_and_the_others_of_a_turn_in_one_write(hub: Hub) -> None:
    """A round does not wait for the work of a busy turn. The write is the cost, so rounds that follow are joined."""
    link = RecordingLink()
    hub.add(link, subscription("crash"))

    for sequence in range(1, 101):
        hub.publish([entry(sequence)])
    first = list(link.recorder.writes)
    await turn()

    assert first == [frame(json_of(entry(1)))]
    assert link.recorder.writes == [*first, b"".join(frame(json_of(entry(n))) for n in range(2, 101))]


async def test_links_without_a_filter_do_not_wait_for_the_filters_of_others(hub: Hub) -> None:
    """A client can open a link for each of thousands of filters, and all of them run on every round."""
    plain, filtered, seen = RecordingLink(), RecordingLink(), list[int]()

    class Watching(Filter):
        def matches(self, facts: Facts) -> bool:
            seen.append(len(plain.recorder.writes))
            return True

    hub.add(filtered, Subscription(frozenset({"crash"}), Watching(min_point=Decimal(1))))
    hub.add(plain, subscription("crash"))
    hub.publish([entry(1)])

    assert seen == [1]
    assert filtered.recorder.writes == plain.recorder.writes


async def test_long_backlog_leaves_in_slices_and_in_order(hub: Hub) -> None:
    """Between slices the loop turns, so that sockets drain."""
    link = RecordingLink()
    hub.add(link, subscription("crash"))
    entries = [entry(sequence) for sequence in range(1, 2001)]

    hub.publish(entries)
    await turn()
    assert 0 < len(b"".join(link.recorder.writes)) < sum(len(json_of(e)) for e in entries)
    await turn(10)

    assert len(link.recorder.writes) > 1
    assert b"".join(link.recorder.writes) == b"".join(frame(json_of(e)) for e in entries)


async def test_filter_lets_through_what_matches(hub: Hub) -> None:
    """A round without the field does not match."""
    link = RecordingLink(SseBlock(chunked=False))
    hub.add(link, subscription("crash", filter_=Filter.build(min_point="2")))
    low, high, none = entry(1, extras='{"point":"1.99"}'), entry(2, extras='{"point":"2"}'), entry(3, extras="{}")

    hub.publish([low, high, none])
    await turn()

    assert link.recorder.writes == [b"id: k1-2\ndata: " + json_of(high) + b"\n\n"]


async def test_links_of_one_form_are_handed_the_same_bytes(hub: Hub) -> None:
    """A round is encoded once for all of them."""
    links = [RecordingLink() for _ in range(3)]
    handed: list[object] = []
    for link in links:
        link.recorder.write = handed.append  # type: ignore[assignment,method-assign]
        hub.add(link, subscription("crash"))

    hub.publish([entry(1)])
    await turn()

    assert len(handed) == 3
    assert all(data is handed[0] for data in handed)


async def test_slow_link_is_ended_with_its_cursor_and_others_are_not(hub: Hub) -> None:
    """It resumes with the cursor of its disconnect; the rounds for others do not wait for it."""
    slow, quick = RecordingLink(ender=Ender(hub, ReconnectDelays(0), linger_s=60)), RecordingLink()
    slow.cursor = lambda: hub.head
    hub.add(slow, subscription("crash"))
    hub.add(quick, subscription("crash"))
    slow.recorder.unsent = 1001

    hub.publish([entry(7)])
    await turn()
    hub.publish([entry(8)])
    await turn()

    assert slow.disconnects == [Disconnect(CloseReason.SLOW, "k1-7", 0)]
    assert len(slow.recorder.writes) == 1
    assert quick.recorder.writes == [frame(json_of(entry(7))), frame(json_of(entry(8)))]


async def test_changed_subscription_counts_from_the_next_round(hub: Hub) -> None:
    """Adding a link again replaces its subscription."""
    link = RecordingLink()
    hub.add(link, subscription("crash"))
    hub.add(link, subscription("dice"))

    hub.publish([entry(1, "crash"), entry(2, "dice")])
    await turn()

    assert link.recorder.writes == [frame(json_of(entry(2, "dice")))]
    assert len(hub) == 1


async def test_links_that_left_are_forgotten(hub: Hub) -> None:
    """Memory does not grow with the number of links that have come and left."""
    for _ in range(100):
        link = RecordingLink()
        hub.add(link, subscription("crash", "dice"))
        hub.remove(link)

    assert (len(hub), hub._channels.has("crash"), vars(hub._channels)) == (0, False, vars(Channels()))


class PoisonedForm(WebSocketText):
    """Cannot render one of the rounds."""

    def render(self, item: Renderable) -> bytes:
        if item.cursor == "k1-2":
            raise RecursionError("poison")
        return super().render(item)


async def test_round_that_fails_affects_no_other(hub: Hub) -> None:
    """The rounds before and after it are delivered."""
    link, other = RecordingLink(PoisonedForm()), RecordingLink(SseBlock(chunked=False))
    hub.add(link, subscription("crash"))
    hub.add(other, subscription("crash"))

    hub.publish([entry(1), entry(2), entry(3)])
    await turn()
    hub.publish([entry(4)])
    await turn()

    assert link.recorder.writes == [b"".join(frame(json_of(entry(n))) for n in (1, 3)), frame(json_of(entry(4)))]
    assert b"".join(other.recorder.writes).count(b"id: k1-") >= 3
    assert hub.head.sequence == 4


async def test_link_that_fails_is_cut_and_others_are_not(hub: Hub) -> None:
    """It gets no disconnect: the cursor would be after rounds that it lacks. The client has its own."""
    ender = Ender(hub, ReconnectDelays(0), linger_s=60)
    bad, good = RecordingLink(ender=ender), RecordingLink()
    hub.add(bad, subscription("crash"))
    hub.add(good, subscription("crash"))

    def fail(_: object) -> None:
        raise RuntimeError("broken")

    bad.recorder.write = fail  # type: ignore[method-assign,assignment]
    hub.publish([entry(1)])
    await turn()
    hub.publish([entry(2)])
    await turn()

    assert bad.recorder.aborted.is_set()
    assert bad.disconnects == []
    assert bad.ended == Disconnect(CloseReason.FAILED, None, 0)
    assert dict(ender.ended) == {CloseReason.FAILED: 1}
    assert len(hub) == 1
    assert good.recorder.writes == [frame(json_of(entry(1))), frame(json_of(entry(2)))]


class UnjoinableForm(WebSocketText):
    """Renders rounds and cannot join them."""

    def join(self, parts: list[bytes]) -> bytes:
        raise RuntimeError("broken")


async def test_links_whose_rounds_cannot_be_joined_are_cut(hub: Hub) -> None:
    """All links of that form and subscription lack the rounds; the reason is ours, not the client's."""
    ender, form = Ender(hub, ReconnectDelays(0), linger_s=60), UnjoinableForm()
    bad, good = [RecordingLink(form, ender=ender) for _ in range(2)], RecordingLink()
    for link in (*bad, good):
        hub.add(link, subscription("crash"))

    hub.publish([entry(1)])
    await turn()

    assert [link.ended for link in bad] == [Disconnect(CloseReason.FAILED, None, 0)] * 2
    assert all(link.recorder.aborted.is_set() for link in bad)
    assert dict(ender.ended) == {CloseReason.FAILED: 2}
    assert good.recorder.writes == [frame(json_of(entry(1)))]


class Connection:
    """What a loop of C sends to: of a stream, the transport of its connection."""

    def __init__(self) -> None:
        self.transport = self
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        """Send nothing from now on."""


class PoorSends(TransportSends):
    """Has no memory."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    def outlet(self, transport: object) -> Any:
        self.connections.append(Connection())
        return self.connections[-1]

    def send(self, links: list[Link], begin: int, end: int, data: object) -> Unsent:
        raise MemoryError


async def test_links_of_which_nobody_knows_what_they_got_are_cut() -> None:
    """Their cursors may be wrong, and a part of a frame may have been sent: no other stream may follow it."""
    sends = PoorSends()
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000, sends=sends)
    ender = Ender(hub, ReconnectDelays(0), linger_s=60)
    links = [RecordingLink(ender=ender) for _ in range(300)]
    for link in links:
        hub.add(link, subscription("crash"))

    hub.publish([entry(1)])

    assert {link.ended for link in links} == {Disconnect(CloseReason.FAILED, None, 0)}
    assert all(link.recorder.aborted.is_set() for link in links)
    assert [connection.is_aborted for connection in sends.connections] == [True] * 300


async def test_unexpected_error_does_not_stop_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop reports it, and the backlog is written in the next turn."""
    link, faults = RecordingLink(), list[object]()
    hub.add(link, subscription("crash"))
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context["exception"]))

    def fail() -> None:
        raise RuntimeError("unthought of")

    with monkeypatch.context() as patch:
        patch.setattr(hub, "_hand_on", fail)
        hub.publish([entry(1)])
    hub.publish([entry(2)])
    await turn(2)

    assert [str(fault) for fault in faults] == ["unthought of"]
    assert b"".join(link.recorder.writes) == b"".join(frame(json_of(entry(n))) for n in (1, 2))


async def test_invalid_data_in_the_log_is_counted_and_skipped(hub: Hub) -> None:
    """Another program wrote to the subject: no client gets the entry, and no link ends."""
    link = RecordingLink()
    hub.add(link, subscription("crash"))

    hub.publish([LogEntry(1, "crash", b"not a round"), entry(2)])
    await turn()

    assert link.recorder.writes == [frame(json_of(entry(2)))]
    assert hub.stats.invalid == 1
