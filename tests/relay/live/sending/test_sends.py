"""Bytes of a channel reach each of its links once and in order, and nobody else, compiled and in Python."""

import asyncio
import os
import random
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from relay.live.closed import CLOSED
from relay.live.encode import WebSocketText, frame
from relay.live.link import CloseReason
from relay.live.sending.sends import CompiledSends, Sends
from tests.relay.live.recording_link import RecordingLink
from tests.relay.live.sending.open_links import (
    LANGUAGES,
    LOOPS,
    OpenLink,
    Rig,
    file_of,
    read_exactly,
    read_some,
    rig_of,
    sends_in,
)
from tests.relay.live.test_hub import entry, json_of, subscription, turn
from tests.waiting import until

Body = Callable[[Rig], Coroutine[Any, Any, None]]


@pytest.fixture(params=LANGUAGES)
def sends(request: pytest.FixtureRequest) -> Sends:
    return sends_in(request.param)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, sends: Sends) -> Callable[..., None]:
    """Runs the body of a test with a rig, in an event loop of each kind."""

    def run(body: Body, **options: int) -> None:
        async def main() -> None:
            with rig_of(sends, **options) as rig:
                await asyncio.wait_for(body(rig), 20)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(main())

    return run


def reset(_: OpenLink, client: socket.socket) -> None:
    """The client's connection breaks."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


ENDS: Final[dict[str, Callable[[OpenLink, socket.socket], object]]] = {
    "reset": reset,
    "closed by the client": lambda _, client: client.close(),
    "closed": lambda link, _: link.transport.close(),
    "aborted": lambda link, _: link.transport.abort(),
    "ended": lambda link, _: link.end(CloseReason.DRAINING),
    "cut": lambda link, _: link.cut(CloseReason.FAILED),
}


def test_bytes_keep_their_order_however_slowly_clients_read(run: Callable[..., None]) -> None:
    """Rounds of all links and bytes of one alone follow each other, through full buffers and parts of writes."""

    async def body(rig: Rig) -> None:
        chance = random.Random(14)
        pairs = [await rig.link() for _ in range(5)]
        wanted, got = [b""] * len(pairs), [b""] * len(pairs)
        waited = 0
        for sequence in range(1, 151):
            round_ = entry(sequence, extras='{"text":"%s"}' % ("x" * chance.choice((10, 300, 9000))))
            rig.hub.publish([round_])
            for number, (link, client) in enumerate(pairs):
                wanted[number] += frame(json_of(round_))
                waited += link.transport.get_write_buffer_size() > 0
                if chance.random() < 0.1:
                    link.heartbeat()
                    wanted[number] += b"beat"
                if number == 0 or chance.random() < 0.3 * number:  # the first reads all, the second hardly anything
                    got[number] += read_some(client)
            await turn(2)
        for number, (_, client) in enumerate(pairs):
            got[number] += await read_exactly(client, len(wanted[number]) - len(got[number]))

        assert waited, "no buffer was ever full"
        assert got == wanted

    run(body, unsent_bytes=16 << 20)


@contextmanager
def free_again(number: int) -> Iterator[None]:
    """Have the next connection get a number that is free: no lower one is."""
    others = []
    while (other := os.dup(0)) < number:
        others.append(other)
    os.close(other)
    yield
    for other in others:
        os.close(other)


@pytest.mark.parametrize("end", ENDS)
def test_socket_number_that_is_used_again_gets_nothing(run: Callable[..., None], end: str) -> None:
    """A connection that is accepted after another was lost has its number. Rounds of the old link do not reach it."""

    async def body(rig: Rig) -> None:
        old, client = await rig.link()
        number, next_client = file_of(old).fileno(), rig.client()
        ENDS[end](old, client)
        rig.hub.publish([entry(1)])
        await until(lambda: old.transport is CLOSED)
        await turn(3)
        with free_again(number):
            new, stranger = await rig.link("dice", client=next_client)
        assert file_of(new).fileno() == number
        rig.hub.add(old, subscription("crash"))  # as if nobody had noticed its end
        rig.hub.publish([entry(2)])
        await turn(2)
        rig.hub.publish([entry(3, "dice")])
        await turn(2)

        assert await read_exactly(stranger, 1) + read_some(stranger) == frame(json_of(entry(3, "dice")))

    run(body)


@pytest.mark.parametrize("end", ["closed", "aborted"])
def test_connection_that_is_closing_gets_nothing(run: Callable[..., None], end: str) -> None:
    """Between `close` and the end of the connection, transports drop what is written. A frame after a close frame
    would break the protocol.
    """

    async def body(rig: Rig) -> None:
        link, client = await rig.link()
        ENDS[end](link, client)
        rig.hub.publish([entry(1)])
        await until(lambda: link.transport is CLOSED)
        await turn(2)

        assert read_some(client) == b""

    run(body)


def test_client_that_has_left_affects_no_other(run: Callable[..., None]) -> None:
    """Its connection ends as it does without rounds, and the links before and after it get theirs."""

    async def body(rig: Rig) -> None:
        before, left, after = [await rig.link() for _ in range(3)]
        lost = asyncio.Event()
        left[0].on_closed = lost.set
        left[0].transport.pause_reading()  # the loop shall find the end when it writes
        reset(*left)
        rounds = [entry(sequence) for sequence in range(1, 5)]
        for round_ in rounds:
            rig.hub.publish([round_])
            await turn(2)
        await lost.wait()

        for _, client in (before, after):
            wanted = b"".join(frame(json_of(each)) for each in rounds)
            assert await read_exactly(client, len(wanted)) == wanted
        assert left[0].transport is CLOSED
        assert left[0].ended is None, "no bug of ours"

    run(body)


def test_half_closed_client_gets_rounds(run: Callable[..., None]) -> None:
    """It has closed its sending side only."""

    async def body(rig: Rig) -> None:
        link, client = await rig.link()
        link.eof_received = lambda: True  # type: ignore[method-assign]
        client.shutdown(socket.SHUT_WR)
        rig.hub.publish([entry(1)])
        wanted = frame(json_of(entry(1)))
        assert await read_exactly(client, len(wanted)) == wanted

    run(body)


def test_link_that_does_not_read_is_slow(run: Callable[..., None]) -> None:
    """What the kernel did not take counts, as without the loop, and others are not waited for."""

    async def body(rig: Rig) -> None:
        slow, _ = await rig.link()
        quick, client = await rig.link()
        rounds = [entry(sequence, extras='{"text":"%s"}' % ("x" * 9000)) for sequence in range(1, 31)]
        got = b""
        for round_ in rounds:
            rig.hub.publish([round_])
            got += await read_exactly(client, len(frame(json_of(round_))))

        assert slow.ended is not None
        assert slow.ended.reason is CloseReason.SLOW
        assert quick.ended is None
        assert got == b"".join(frame(json_of(each)) for each in rounds)

    run(body, unsent_bytes=100_000)


async def test_links_without_a_socket_are_written_to(sends: Sends) -> None:
    """Their transports get all bytes."""
    link = RecordingLink()
    with rig_of(sends) as rig:
        rig.hub.add(link, subscription("crash"))
        rig.hub.publish([entry(1)])

    assert link.recorder.writes == [frame(json_of(entry(1)))]


class BatchForm(WebSocketText):
    """Joins rounds into what only the sink of its links understands, as gRPC does."""

    def join(self, parts: list[bytes]) -> bytes:
        return bytearray(b"".join(parts))  # type: ignore[return-value]


async def test_batch_of_a_form_goes_to_the_sink(sends: Sends) -> None:
    """As it is."""
    link, handed = RecordingLink(BatchForm()), list[object]()
    link.recorder.write = handed.append  # type: ignore[assignment,method-assign]
    with rig_of(sends) as rig:
        rig.hub.add(link, subscription("crash"))
        rig.hub.publish([entry(1)])

    assert handed == [bytearray(frame(json_of(entry(1))))]
    assert type(handed[0]) is bytearray


# --- the compiled loop alone ---------------------------------------------------------------------------------------


def send_to() -> Any:
    """Return the function in C."""
    sends = sends_in("c")
    assert isinstance(sends, CompiledSends)
    return sends._send_to


@pytest.fixture(params=LOOPS)
def run_compiled(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs the body of a test of the compiled loop."""
    sends = sends_in("c")

    def run(body: Body) -> None:
        async def main() -> None:
            with rig_of(sends) as rig:
                await asyncio.wait_for(body(rig), 20)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(main())

    return run


def test_compiled_loop_sends_all_that_it_may(run_compiled: Callable[..., None]) -> None:
    """It returns the links that it did not send to, in their order, each with the bytes that it did send."""

    async def body(rig: Rig) -> None:
        send: Any = rig.hub.sends.send
        links = [(await rig.link())[0] for _ in range(70)]  # more than it looks at together
        assert list(send(links, 0, 1000, b"round")) == []
        rig.hub.remove(links[3])
        links[5].transport.close()
        links[66].transport = CLOSED

        assert list(send(links, 0, 70, b"round")) == [(links[number], 0) for number in (3, 5, 66)]
        assert list(send(links, 2, 5, b"round")) == [(links[3], 0)]
        assert list(send(links, -5, 1, b"round")) == []
        assert list(send(links, 70, 90, b"round")) == []
        assert list(send(links, 0, 1, b"")) == [], "nothing is missing of nothing"
        [(link, sent)] = send(links, 0, 1, b"x" * 10_000_000)
        assert link is links[0]
        assert 0 < sent < 10_000_000
        while list(send(links, 0, 1, b"x" * 1000)) != [(links[0], 0)]:
            await turn()  # its buffers are not full yet

    run_compiled(body)


@pytest.mark.parametrize("end", ENDS)
def test_outlet_that_nobody_closed_sends_nothing(run_compiled: Callable[..., None], end: str) -> None:
    """The transport is asked before each send: it says that it is closing before its socket is closed."""

    async def body(rig: Rig) -> None:
        link, client = await rig.link()
        transport, outlet, number = link.transport, link.outlet, file_of(link).fileno()
        next_client = rig.client()
        link.outlet = None  # it stays open
        ENDS[end](link, client)
        await until(lambda: link.transport is CLOSED)
        await turn(3)
        with free_again(number):
            new, stranger = await rig.link("dice", client=next_client)
        assert file_of(new).fileno() == number
        link.transport, link.outlet = transport, outlet

        assert outlet is not None
        assert outlet.fd == number
        assert list(rig.hub.sends.send([link], 0, 1, b"round")) == [(link, 0)]
        assert read_some(stranger) == b""

    run_compiled(body)


def test_compiled_loop_waits_for_what_the_transport_holds(run_compiled: Callable[..., None]) -> None:
    """Bytes that wait in the transport come before all others."""

    async def body(rig: Rig) -> None:
        link, client = await rig.link()
        link.transport.write(b"x" * 5_000_000)
        waiting = link.transport.get_write_buffer_size()
        assert waiting > 0
        read_some(client, 1 << 22)  # the socket has room, and the transport does not know it yet

        assert list(rig.hub.sends.send([link], 0, 1, b"round")) == [(link, 0)]

    run_compiled(body)


def anonymous(side: int) -> ssl.SSLContext:
    """Return a context of TLS without certificates."""
    context = ssl.SSLContext(side)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


def test_only_transports_of_sockets_have_outlets(run_compiled: Callable[..., None]) -> None:
    """TLS would be broken by plain bytes."""

    async def body(rig: Rig) -> None:
        link, _ = await rig.link()
        outlet = rig.hub.sends.outlet
        found = outlet(link.transport)
        assert found is not None
        assert (found.fd, found.transport) == (file_of(link).fileno(), link.transport)
        left, right = socket.socketpair()
        loop = asyncio.get_running_loop()
        unix, _ = await loop.create_unix_connection(asyncio.Protocol, sock=left)
        assert outlet(unix) is not None
        unix.close()
        assert outlet(unix) is None
        right.close()
        for other in (CLOSED, RecordingLink().transport, None):
            assert outlet(other) is None
        serving = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=anonymous(ssl.PROTOCOL_TLS_SERVER))
        host, port = serving.sockets[0].getsockname()
        tls, _ = await loop.create_connection(asyncio.Protocol, host, port, ssl=anonymous(ssl.PROTOCOL_TLS_CLIENT))
        assert outlet(tls) is None
        tls.abort()
        serving.close()

    run_compiled(body)


class Odd:
    """Looks like a link, and fails."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    @property
    def outlet(self) -> object:
        raise self._error("odd")


def test_compiled_loop_leaves_errors_of_a_link_to_its_own_code() -> None:
    """Where they are logged and the link is cut; what is no error of a link ends the loop."""
    send = send_to()
    odd = Odd(ValueError)

    assert list(send([odd, RecordingLink.__new__(RecordingLink)], 0, 1, b"x")) == [(odd, 0)]
    with pytest.raises(KeyboardInterrupt):
        send([Odd(KeyboardInterrupt)], 0, 1, b"x")
    with pytest.raises(TypeError):
        send((), 0, 1, b"x")
    with pytest.raises(TypeError):
        send([], 0, 1, "x")
