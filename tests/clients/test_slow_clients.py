"""Clients that do not read, do not answer or send garbage: they are ended, and no other client waits for them."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import websockets

from tests.clients.live_relay import LiveRelay
from tests.clients.promptness import ATTEMPTS, is_prompt
from tests.clients.raw_websocket import CLOSE, PING, TEXT, RawWebSocket
from tests.clients.recorded import FLOOD_ROUND_BYTES, flooded_relay
from tests.clients.rounds_seen import checked, sequence

pytestmark = pytest.mark.service

SMALL_BUFFER = 4096
SLOW_ENDED = '"link_closed".*"slow"|"slow".*"link_closed"'


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[LiveRelay]:
    """A relay that cuts an ended client after a tenth of a second."""
    with flooded_relay(tmp_path, linger_s=0.1) as relay:
        yield relay


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[LiveRelay]:
    """A relay that gives an ended client a minute to read its disconnect."""
    with flooded_relay(tmp_path, linger_s=60) as relay:
        yield relay


def read_until(relay: LiveRelay, sent_bytes: int) -> None:
    """Read another link until the relay has sent `sent_bytes` more to every link."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        while sent_bytes > 0:
            sent_bytes -= len(ws.frame().payload)


def test_slow_websocket_client_gets_its_cursor(patient: LiveRelay) -> None:
    """A client that reads again in time finds 4008 after its rounds, with the cursor of the last one."""
    with RawWebSocket(patient, "/ws/crash", receive_buffer=SMALL_BUFFER) as ws:
        read_until(patient, 15 << 20)
        sequences = []
        while True:
            opcode, payload = ws.frame()
            if opcode == CLOSE:
                break
            if opcode == TEXT:
                sequences.append(sequence(json.loads(payload)))

    reason = json.loads(payload[2:])
    assert int.from_bytes(payload[:2], "big") == 4008
    assert reason["reason"] == "slow"
    assert sequence(reason) == sequences[-1]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


def test_websocket_client_that_never_reads_is_cut(impatient: LiveRelay) -> None:
    """A client that does not read its disconnect either is cut."""
    with RawWebSocket(impatient, "/ws/crash", receive_buffer=SMALL_BUFFER) as ws:
        impatient.wait_for(SLOW_ENDED)
        read_until(impatient, 2 << 20)

        assert ws.closed().code is None


def test_event_stream_that_is_never_read_is_cut(impatient: LiveRelay) -> None:
    """The same for an event stream."""
    with unread_event_stream(impatient) as stream:
        impatient.wait_for(SLOW_ENDED)
        read_until(impatient, 2 << 20)

        assert not read_to_end(stream).endswith(b"0\r\n\r\n")


def read_to_end(stream: socket.socket) -> bytes:
    """Read until the relay ends the connection; return the last bytes. Raises TimeoutError when it does not end."""
    last = b""
    try:
        while data := stream.recv(1 << 16):
            last = (last + data)[-100:]
    except ConnectionError:
        pass
    return last


def test_memory_held_for_clients_that_never_read(impatient: LiveRelay) -> None:
    """Twenty clients that never read cost their limit each for a moment, and nothing after they are cut."""
    before = impatient.resident_bytes
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(RawWebSocket(impatient, "/ws/crash", receive_buffer=SMALL_BUFFER))
            stack.enter_context(unread_event_stream(impatient))
        for _ in range(20):
            impatient.wait_for(SLOW_ENDED)
    read_until(impatient, 5 << 20)

    assert impatient.resident_bytes - before < 48 << 20


async def test_ten_bad_clients_and_the_eleventh(impatient: LiveRelay) -> None:
    """Ten clients that are slow, dead or hostile do not delay another one: it gets each round, in order, at once."""
    for _ in range(ATTEMPTS):
        with ExitStack() as stack:
            token = websockets.Subprotocol(await asyncio.to_thread(impatient.token))
            async with (
                asyncio.timeout(60),
                websockets.connect(f"{impatient.ws_url}/ws/crash", subprotocols=[token], max_size=None) as ws,
            ):
                sequences, alone_s = await delays_of(ws, 40)
                came = asyncio.create_task(asyncio.to_thread(ten_bad_clients, stack, impatient))
                later, beside_s = await delays_until(ws, came)
                # Long enough for the slow ones to exceed their limits.
                last, delays_s = await delays_of(ws, 8 * (1 << 20) // FLOOD_ROUND_BYTES)
        sequences += later + last
        beside_s += delays_s
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        until_cut_s, after_s = beside_s[:40], beside_s[40:]
        if max(beside_s) < 2 and is_prompt(until_cut_s, alone_s) and is_prompt(after_s, alone_s):
            return
    raise AssertionError(f"delays in s alone: {sorted(alone_s)}; beside bad clients: {sorted(beside_s)}")


async def delays_of(ws: websockets.ClientConnection, count: int) -> tuple[list[int], list[float]]:
    """Read `count` rounds; return their sequences, and how old each was in seconds."""
    sequences: list[int] = []
    delays_s: list[float] = []
    while len(sequences) < count:
        round_ = checked(await ws.recv())
        delays_s.append(time.time() - round_["timestamp"] / 1000)
        sequences.append(sequence(round_))
    return sequences, delays_s


async def delays_until(ws: websockets.ClientConnection, done: "asyncio.Task[None]") -> tuple[list[int], list[float]]:
    """Read rounds until a task is done; return the same."""
    sequences: list[int] = []
    delays_s: list[float] = []
    while not done.done():
        found, delay_s = await delays_of(ws, 1)
        sequences += found
        delays_s += delay_s
    await done
    return sequences, delays_s


def ten_bad_clients(stack: ExitStack, relay: LiveRelay) -> None:
    """Connect ten clients that each misbehave in another way."""

    def websocket(receive_buffer: int | None = None) -> RawWebSocket:
        return stack.enter_context(RawWebSocket(relay, "/ws/crash", receive_buffer=receive_buffer))

    def plain() -> socket.socket:
        return stack.enter_context(socket.create_connection(("127.0.0.1", relay.port), timeout=10))

    websocket(receive_buffer=SMALL_BUFFER)  # 1: never reads
    websocket(receive_buffer=SMALL_BUFFER)  # 2: and another
    stack.enter_context(unread_event_stream(relay))  # 3: the same over SSE
    websocket().send(TEXT, b'{"action":', fin=False)  # 4: begins a message and never ends it
    pinging = websocket(receive_buffer=SMALL_BUFFER)  # 5: pings and never reads the answers
    for _ in range(90):
        pinging.send(PING, b"x" * 125)
    websocket().socket.sendall(b"\x81")  # 6: half a frame header
    plain()  # 7: connects and sends nothing
    plain().sendall(b"GET /sse/crash HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")  # 8: a request that never ends
    plain().sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100)  # 9: TLS where there is none
    plain().sendall(
        b"POST /api/auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    )  # 10: an unfinished body


def unread_event_stream(relay: LiveRelay) -> socket.socket:
    """Request an event stream and read nothing of it."""
    stream = socket.socket()
    stream.settimeout(30)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    stream.connect(("127.0.0.1", relay.port))
    stream.sendall(f"GET /sse/crash HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {relay.key}\r\n\r\n".encode())
    return stream
