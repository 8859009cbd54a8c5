"""Links over HTTP/2 without a relay: what the hub writes reaches each stream, and how a stream ends."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.history.start import Start, hello
from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.channels import Subscription
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason
from relay.live.ring import Ring
from relay.rpc.calls.grpc_call import GrpcCall
from relay.rpc.calls.one_request import OneRequest
from relay.rpc.calls.request_messages import RequestMessages, message_end, prefixed
from relay.rpc.grpc_link import GrpcLink
from relay.rpc.status_code import StatusCode
from roundlog.entry import LogEntry
from rounds import Cursor, Filter
from rounds import datastream_pb2 as pb
from tests.relay.http2.peers import ANSWER, TRAILERS, Pair, Recorder
from tests.rpc.calls.call_pair import PATH, CallPair, turns
from tests.rpc.conftest import make_round

CRASH: Final = Subscription(frozenset({"crash"}), Filter())
UNSENT_BYTES: Final = 1000
DEADLINE_S: Final = 0.02
PASSED_S: Final = 3 * DEADLINE_S


class Following(OneRequest):
    """Makes a link of its call."""

    def __init__(self, call: GrpcCall, make: Callable[[GrpcCall], None]) -> None:
        super().__init__(call, within_s=10)
        self._make = make

    def on_request(self, data: bytes) -> None:
        self._make(self.call)


class Relay:
    """A hub, and a connection whose calls become links of it."""

    def __init__(self, *, begins: bool = True, subscribes: bool = True, **options: Any) -> None:
        """`options` are those of `GrpcLink`, and of `CallPair`."""
        self._begins, self._subscribes = begins, subscribes
        self._options = {name: options.pop(name) for name in ("allow_gap", "keeps_unsent") if name in options}
        self.hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=UNSENT_BYTES)
        self.hub.begin(Bounds("k1", 1, 9))
        self.ender = Ender(self.hub, ReconnectDelays(0), linger_s=60)
        self.links: list[GrpcLink] = []
        self.closed: list[GrpcLink] = []
        self.pair = CallPair({PATH: lambda call: Following(call, self._link)}, **options)
        self._sequence = 9

    def _link(self, call: GrpcCall) -> None:
        link = GrpcLink(self.hub, call, self.ender, max_age_s=60, **self._options)
        link.on_closed = lambda: self.closed.append(link)
        link.cursor = lambda: self.hub.head
        self.links.append(link)
        if self._begins:
            link.begin(Start())
        if self._subscribes:
            self.hub.add(link, CRASH)

    async def publish(self, *numbers: int, extras: str = '{"point":"2.50"}') -> None:
        """Put rounds into the log."""
        entries = []
        for number in numbers:
            self._sequence += 1
            entries.append(LogEntry(self._sequence, "crash", make_round("crash", number, extras=extras).to_json()))
        self.hub.publish(entries)
        await turns()

    def rounds(self, call: int) -> list[int]:
        """Return the ids of the rounds that a client has got."""
        return [pb.Round.FromString(message).round_id for message in self.pair.messages(call)]


@pytest.fixture
async def relay() -> Relay:
    return Relay()


async def test_round_is_made_once_for_all_streams(relay: Relay) -> None:
    """Streams of one connection get the same bytes in frames of their own; an idle one has no task."""
    tasks = len(asyncio.all_tasks())
    calls = [relay.pair.call(b"") for _ in range(3)]
    await turns()
    assert len(asyncio.all_tasks()) == tasks
    writes = relay.pair.transport.writes
    await relay.publish(1)
    assert relay.pair.transport.writes == writes + 3
    await relay.publish(2, 3)
    relay.pair.settle()

    assert [relay.rounds(call) for call in calls] == [[1, 2, 3]] * 3
    assert len({relay.pair.body(call) for call in calls}) == 1
    assert [dict(relay.pair.headers(call)[0])[b"head-cursor"] for call in calls] == [b"k1-9"] * 3


async def test_client_that_leaves(relay: Relay) -> None:
    """Its link is closed in that turn, and the others stay."""
    calls = [relay.pair.call(b"") for _ in range(2)]
    relay.pair.client.reset_stream(calls[0], 8)
    relay.pair.settle()
    await relay.publish(1)
    relay.pair.settle()

    assert relay.closed == [relay.links[0]]
    assert relay.rounds(calls[1]) == [1]


@pytest.mark.parametrize("reason", [CloseReason.DRAINING, CloseReason.REVOKED, CloseReason.COMPLETED])
async def test_end_after_all_that_was_written(relay: Relay, reason: CloseReason) -> None:
    """The status, with the place where to resume unless the client is to stop."""
    call = relay.pair.call(b"")
    await relay.publish(1)
    relay.links[0].end(reason)
    relay.pair.settle()
    code, _, trailers = relay.pair.status(call)

    assert relay.rounds(call) == [1]
    assert (
        code
        is {
            CloseReason.DRAINING: StatusCode.UNAVAILABLE,
            CloseReason.REVOKED: StatusCode.PERMISSION_DENIED,
            CloseReason.COMPLETED: StatusCode.OK,
        }[reason]
    )
    assert trailers.get("resume-cursor") == ("k1-10" if reason is CloseReason.DRAINING else None)
    assert relay.closed == []
    await turns()
    assert relay.closed == relay.links


async def test_deadline_of_a_client(relay: Relay) -> None:
    """Its stream ends with DEADLINE_EXCEEDED and a cursor; a deadline that has not passed leaves no timer."""
    late = relay.pair.call(b"", metadata=[("grpc-timeout", f"{int(DEADLINE_S * 1000)}m")])
    relay.pair.call(b"", metadata=[("grpc-timeout", "1H")])
    await relay.publish(1)
    await asyncio.sleep(PASSED_S)
    relay.pair.settle()
    code, _, trailers = relay.pair.status(late)

    assert code is StatusCode.DEADLINE_EXCEEDED
    assert trailers["resume-cursor"] == "k1-10"
    assert relay.links[0].ended is not None
    assert relay.links[0].ended.reason is CloseReason.DEADLINE
    assert relay.closed == [relay.links[0]]


async def test_end_before_the_first_metadata() -> None:
    """Trailers only, and no heartbeat before them."""
    relay = Relay(begins=False, subscribes=False)
    call = relay.pair.call(b"")
    [link] = relay.links
    link.heartbeat_s = 5
    link.heartbeat()
    link.end(CloseReason.DRAINING)
    link.send_event(hello(relay.hub.bounds, complete=True))
    relay.pair.settle()

    assert relay.pair.code(call) is StatusCode.UNAVAILABLE
    assert len(relay.pair.headers(call)) == 1


async def test_stream_with_a_cursor_has_hello_in_its_metadata() -> None:
    """And a gap as a message, where the client allows gaps."""
    relay = Relay(begins=False, subscribes=False, allow_gap=True)
    call = relay.pair.call(b"")
    [link] = relay.links
    link.begin(Start(after=Cursor("k0", 3)))
    link.send_event(hello(relay.hub.bounds, complete=False))
    link.send_event(Gap(Cursor("k0", 3), Cursor("k1", 0), GapReason.REBUILT).event())
    relay.pair.settle()
    metadata = dict(relay.pair.headers(call)[0])

    assert (metadata[b"complete"], metadata[b"oldest-cursor"], metadata[b"head-cursor"]) == (b"false", b"k1-1", b"k1-9")
    assert [pb.Round.FromString(message).gap.reason for message in relay.pair.messages(call)] == ["rebuilt"]


async def test_client_that_does_not_read_is_slow() -> None:
    """What is unsent is bounded. Its status waits; after the time to read it, what was not begun is dropped."""
    relay = Relay(window=300)
    call = relay.pair.call(b"")
    [link] = relay.links
    for number in range(20):
        await relay.publish(number)
    assert link.ended is not None
    assert link.ended.reason is CloseReason.SLOW
    assert UNSENT_BYTES < link._stream.queued_bytes < 2 * UNSENT_BYTES
    relay.pair.settle()
    assert relay.pair.code(call) is None
    assert relay.closed == []
    link.abort()
    await turns()
    assert relay.closed == [link]
    assert link._stream.queued_bytes < 300
    relay.pair.client.increment_flow_control_window(10_000, call)
    relay.pair.settle()
    code, message, trailers = relay.pair.status(call)

    assert code is StatusCode.UNAVAILABLE
    assert "slow" in message
    assert "resume-cursor" not in trailers
    got = relay.rounds(call)
    assert got == list(range(len(got)))
    assert 0 < len(got) < 5


async def test_client_that_reads_its_end_in_time() -> None:
    """It gets all that was written, and the cursor after it."""
    relay = Relay(window=300)
    call = relay.pair.call(b"")
    for number in range(20):
        await relay.publish(number)
    relay.pair.client.increment_flow_control_window(10_000, call)
    relay.pair.settle()
    _, _, trailers = relay.pair.status(call)

    got = relay.rounds(call)
    assert got == list(range(len(got)))
    assert trailers["resume-cursor"] == f"k1-{9 + len(got)}"
    await turns()
    relay.links[0].abort()
    assert relay.closed == relay.links


@pytest.mark.parametrize("keeps_unsent", [True, False])
async def test_completed_stream_whose_client_does_not_read(keeps_unsent: bool) -> None:
    """It ends with OK only when it has all rounds."""
    relay = Relay(window=100, keeps_unsent=keeps_unsent)
    call = relay.pair.call(b"")
    await relay.publish(1, 2, 3)
    [link] = relay.links
    link.end(CloseReason.COMPLETED)
    link.abort()
    await turns()
    assert relay.closed == [link]
    relay.pair.client.increment_flow_control_window(10_000, call)
    relay.pair.settle()

    assert (relay.pair.code(call), relay.rounds(call)) == (
        (StatusCode.OK, [1, 2, 3]) if keeps_unsent else (StatusCode.UNAVAILABLE, [1])
    )


async def test_link_that_is_cut(relay: Relay) -> None:
    """Its client gets a status without a cursor at once."""
    call = relay.pair.call(b"")
    relay.links[0].cut(CloseReason.FAILED)
    relay.pair.settle()
    code, _, trailers = relay.pair.status(call)

    assert code is StatusCode.INTERNAL
    assert "resume-cursor" not in trailers


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=12),
    st.integers(0, 1500),
    st.lists(st.integers(1, 300), max_size=6),
)
def test_early_end_at_any_place(sizes: list[int], window: int, before: list[int]) -> None:
    """The client gets whole messages, the first ones, and then the trailers; nothing else is kept."""
    pair = Pair(Recorder(), window=window)
    call = pair.request()
    [received] = pair.service.requests
    stream = received.stream
    stream.send_headers(ANSWER)
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    for message in messages:
        stream.write(prefixed(message))
    for size in before:
        pair.client.increment_flow_control_window(size, call)
        pair.settle()
    stream.end_early(TRAILERS, message_end)
    pair.settle()
    assert stream.queued_bytes <= max(map(len, map(prefixed, messages)))
    if not pair.has_ended(call):
        pair.client.increment_flow_control_window(10_000, call)
        pair.settle()

    reader = RequestMessages("identity", 1 << 20)
    got = list(reader.read(pair.body(call)))
    assert not reader.is_partial
    assert got == messages[: len(got)]
    assert pair.has_ended(call)
    assert pair.headers(call)[-1] == list(TRAILERS)
    assert stream.is_over()
