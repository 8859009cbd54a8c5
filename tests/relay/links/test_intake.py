"""What clients send: pieces, turns, and connections that change their receiver."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count, groupby
from pathlib import Path
from typing import cast

import pytest
import uvloop

from relay import turns as turns_module
from relay.links.intake import Intake
from relay.turns import Turns
from tests.network.streams import connected
from tests.relay.raw_http import Connection, connection
from tests.rpc.certificates import Authority
from tests.waiting import until

MANY: bytes = bytes(range(256)) * 4096
"""1 MB."""


class Recorder:
    """A receiver that keeps what it gets."""

    holds_reading = False

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.received: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        self._keeps_open = keeps_open
        self.on_data: Callable[[bytes], bool] = lambda data: False

    @property
    def data(self) -> bytes:
        return b"".join(self.received)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's for TLS is no subclass

    def data_received(self, data: bytes) -> bool:
        self.received.append(data)
        return self.on_data(data)

    def eof_received(self) -> bool:
        self.ended.set()
        return self._keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


@asynccontextmanager
async def listening(turns: Turns, *receivers: Recorder) -> AsyncIterator[str]:
    """Accept one connection for each receiver; yield the address."""
    waiting = iter(receivers)
    server = await asyncio.get_running_loop().create_server(lambda: Intake(turns, next(waiting)), "127.0.0.1", 0)
    async with server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            for receiver in receivers:
                if receiver.transport is not None:
                    receiver.transport.abort()
            await asyncio.sleep(0)  # the transports close


@pytest.fixture
def dear_turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Turns in which one call of any receiver takes all the time there is: simulated, so that every run is the same."""
    clock = count()
    monkeypatch.setattr(turns_module, "perf_counter", lambda: float(next(clock)))
    return Turns(turn_s=0.5)


async def send_all(raw: Connection, data: bytes) -> None:
    async with asyncio.timeout(20):
        await raw.send(data)


async def test_much_data_comes_in_small_pieces_and_whole() -> None:
    """A receiver is never called with more than 8 KB of one read."""
    receiver = Recorder()
    async with listening(Turns(), receiver) as url, connection(url) as raw:
        await send_all(raw, MANY)
        await until(lambda: len(receiver.data) == len(MANY))

    assert receiver.data == MANY
    assert max(map(len, receiver.received)) <= 8 << 10


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_data_over_tls_is_whole(new_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    """A piece holds several records of TLS, the last one in part."""
    authority = Authority(tmp_path / "ca", "test")
    pair = authority.sign("server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pair.certificate, pair.key)
    trusting = ssl.create_default_context(cafile=authority.certificate)
    receiver, sent = Recorder(), b"".join(number.to_bytes(4, "big") for number in range(50_000))

    async def upload() -> None:
        loop, turns = asyncio.get_running_loop(), Turns()
        server = await loop.create_server(lambda: Intake(turns, receiver), "127.0.0.1", 0, ssl=serving)
        async with server:
            async with connected(*server.sockets[0].getsockname(), context=trusting) as (_, writer):
                for at in range(0, len(sent), 300):
                    writer.write(sent[at : at + 300])
                    await writer.drain()
                await until(lambda: len(receiver.data) >= len(sent))
            await receiver.lost.wait()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(upload())

    assert receiver.data == sent


async def test_other_tasks_run_between_any_two_pieces_that_take_a_whole_turn(dear_turns: Turns) -> None:
    """However fast a client sends: one piece for each turn of the loop."""
    receiver, turn, turns_of_pieces = Recorder(), 0, list[int]()

    def note_turn(data: bytes) -> bool:
        turns_of_pieces.append(turn)
        return False

    receiver.on_data = note_turn
    async with listening(dear_turns, receiver) as url, connection(url) as raw:
        sending = asyncio.create_task(send_all(raw, MANY))
        async with asyncio.timeout(20):
            while len(receiver.data) < len(MANY):
                turn += 1
                await asyncio.sleep(0)
        await sending

    assert len(turns_of_pieces) >= 128
    assert max(len(list(pieces)) for _, pieces in groupby(turns_of_pieces)) == 1


async def test_connections_take_turns(dear_turns: Turns) -> None:
    """A connection that always has more does not keep one waiting that has little."""
    greedy, modest, order = Recorder(), Recorder(), list[str]()

    def note(name: str, *, is_finished: bool) -> bool:
        order.append(name)
        return not is_finished

    greedy.on_data = lambda data: note("greedy", is_finished=False)
    modest.on_data = lambda data: note("modest", is_finished=True)
    async with listening(dear_turns, greedy, modest) as url, connection(url) as first, connection(url) as second:
        await first.send(b"x")
        await until(lambda: len(order) > 10)
        await second.send(b"y")
        await until(lambda: "modest" in order)
        at = len(order)
        await until(lambda: len(order) > at + 10)

    assert order.count("modest") == 1


async def test_receiver_that_is_not_finished_is_called_again() -> None:
    """With nothing new, until it is finished; then the connection is read on."""
    receiver, calls = Recorder(), count()
    receiver.on_data = lambda data: next(calls) < 5
    async with listening(Turns(), receiver) as url, connection(url) as raw:
        await raw.send(b"a")
        await until(lambda: len(receiver.received) == 6)
        await raw.send(b"b")
        await until(lambda: receiver.data == b"ab")


async def test_next_receiver_gets_what_the_former_did_not_take(dear_turns: Turns) -> None:
    """In order: what was put back, what waited for its turn, and the end of the connection."""
    former, following = Recorder(), Recorder()
    async with listening(dear_turns, former) as url, connection(url) as raw:
        await raw.send(b"head|")
        await until(lambda: former.data == b"head|")
        assert former.transport is not None
        protocol = former.transport.get_protocol()
        assert isinstance(protocol, Intake)
        raw.writer.write(b"rest")
        raw.writer.write_eof()
        protocol.put_back(b"tail|")
        protocol.hand_to(following)
        async with asyncio.timeout(20):
            await following.ended.wait()

    assert (former.data, following.data) == (b"head|", b"tail|rest")


@pytest.mark.parametrize("keeps_open", [True, False])
async def test_receiver_decides_what_the_end_of_input_means(keeps_open: bool) -> None:
    """It comes after the last bytes; the connection stays open when the receiver wants to answer."""
    receiver = Recorder(keeps_open=keeps_open)
    async with listening(Turns(), receiver) as url, connection(url) as raw:
        await raw.send(b"request")
        raw.writer.write_eof()
        async with asyncio.timeout(20):
            await receiver.ended.wait()
        assert receiver.transport is not None
        if keeps_open:
            receiver.transport.write(b"answer")
            receiver.transport.close()
        assert await raw.rest() == (b"answer" if keeps_open else b"")

    assert receiver.data == b"request"


async def test_connection_of_a_receiver_that_fails_is_cut(dear_turns: Turns) -> None:
    """In its own turn and in a later one; others are served."""

    def fail(data: bytes) -> bool:
        raise RuntimeError("a bug")

    first, second, other = Recorder(), Recorder(), Recorder()
    first.on_data = second.on_data = fail
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context.get("exception")))
    async with (
        listening(dear_turns, first, second, other) as url,
        connection(url) as one,
        connection(url) as two,
        connection(url) as three,
    ):
        for raw in (one, two, three):
            await raw.send(b"x")
        async with asyncio.timeout(20):
            await first.lost.wait()
            await second.lost.wait()
        await until(lambda: other.data == b"x")

    assert [str(error) for error in reported] == ["a bug", "a bug"]


async def test_requests_of_many_connections_start_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is counted as 0.2 ms until it is measured, so that at most five start in 0.9 ms; in order.

    Those that are cancelled do not start. A simulated clock makes each of them take 0.3 ms.
    """
    now_s = 0.0
    monkeypatch.setattr(turns_module, "perf_counter", lambda: now_s)
    turns, turn, started = Turns(turn_s=0.0009), 0, list[tuple[int, int]]()

    async def handle(number: int) -> None:
        nonlocal now_s
        now_s += 0.0003
        started.append((turn, number))

    async def request(number: int) -> None:
        await turns.wait()
        await turns.measured(handle(number))

    requests = [asyncio.create_task(request(number)) for number in range(50)]
    await asyncio.sleep(0)
    requests[30].cancel()
    while not all(request.done() for request in requests):
        turn += 1
        await asyncio.sleep(0)

    assert [number for _, number in started] == [number for number in range(50) if number != 30]
    assert max(len(list(group)) for _, group in groupby(at for at, _ in started)) <= 5
    assert turn >= 49 * 0.3 / 0.9 - 1  # what exceeds a share is taken from the next one


async def test_handler_is_measured_and_otherwise_as_it_is() -> None:
    """What it returns, raises and is sent passes through; a cancellation arrives where it waits."""
    turns, waits = Turns(), asyncio.Event()
    ends = list[str]()

    async def answers() -> str:
        await asyncio.sleep(0)
        return "answer"

    async def fails() -> None:
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0)
        except TimeoutError:
            raise ValueError("a bug") from None

    async def waits_long() -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    assert await turns.measured(answers()) == "answer"
    with pytest.raises(ValueError, match="a bug"):
        await turns.measured(fails())
    waiting = asyncio.create_task(turns.measured(waits_long()))
    await waits.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ends == ["cancelled"]


async def test_handler_that_has_used_the_share_waits_at_its_next_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nothing that it awaited took time. A simulated clock makes each slice take 0.3 ms."""
    now_s, turn, done = 0.0, 0, list[int]()
    monkeypatch.setattr(turns_module, "perf_counter", lambda: now_s)
    turns = Turns(turn_s=0.0009)

    async def handle() -> None:
        nonlocal now_s
        async for items in turns.slices(range(2000)):
            now_s += 0.0003
            done.extend([turn] * len(items))

    handler = asyncio.create_task(turns.measured(turns.measured(handle())))
    while not handler.done():
        await asyncio.sleep(0)
        turn += 1

    slices = len(done) // turns_module._SLICE
    assert len(done) == 2000
    assert max(len(list(group)) for _, group in groupby(done)) <= 4 * turns_module._SLICE
    assert slices / 6 < len(set(done)), "a step within a step is counted once"
    assert len(set(done)) <= slices


async def test_many_that_leave_at_once_are_cleared_away_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that leaves keeps nobody waiting for a round. A simulated clock makes each one take 0.3 ms."""
    now_s, turn, left = 0.0, 0, list[int]()
    monkeypatch.setattr(turns_module, "perf_counter", lambda: now_s)
    turns = Turns(turn_s=0.0009)

    def clear_away() -> None:
        nonlocal now_s
        now_s += 0.0003
        left.append(turn)

    for _ in range(50):
        turns.call(clear_away)
    while len(left) < 50:
        turn += 1
        await asyncio.sleep(0)

    assert max(len(list(group)) for _, group in groupby(left)) <= 4
