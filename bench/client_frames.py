"""``python -m bench.client_frames``: what reading a client's WebSocket frames and its handshake costs.

The yardstick is `websockets` in the same run, so that ratios hold on any machine: for frames a ``ServerProtocol`` kept
per link, for handshakes one that serves all links. The figures of docs/adr/0013 are from here.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from multidict import CIMultiDict
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from bench._report import heading, table
from relay.http.websocket.frames import FrameReader
from relay.http.websocket.handshake import shake_hands

_MAX_SIZE: Final = 4096
_REPEATS: Final = 9
_ROUND_S: Final = 0.05
_READERS: Final = 2000
_SUBSCRIBE: Final = b'{"action":"subscribe","games":["dice","crash"]}'
_HANDSHAKE: Final = CIMultiDict(
    {
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "YSBiZW5jaCwgbm8gbmFtZQ==",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    }
)


class Reader(Protocol):
    """Takes the bytes of one client."""

    def feed(self, data: bytes) -> Iterable[object]: ...


class WholeProtocol:
    """`websockets`' protocol of a connection that is open."""

    def __init__(self) -> None:
        self._protocol = ServerProtocol(state=State.OPEN, max_size=_MAX_SIZE)
        self._protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]

    def feed(self, data: bytes) -> Iterable[object]:
        self._protocol.receive_data(data)
        self._protocol.data_to_send()
        return self._protocol.events_received()


def relay_reader() -> Reader:
    return FrameReader(max_size=_MAX_SIZE, deflate=True)


def sent(opcode: Opcode, data: bytes, *, fin: bool = True, deflate: bool = False) -> bytes:
    extensions = [PerMessageDeflate(True, True, 15, 15)] if deflate else None
    return bytes(Frame(opcode, data, fin=fin).serialize(mask=True, extensions=extensions))


def fragments(parts: list[bytes]) -> bytes:
    """Render a message that is never finished."""
    return b"".join(sent(Opcode.TEXT if at == 0 else Opcode.CONT, part, fin=False) for at, part in enumerate(parts))


_WIRES: Final = {
    "pong, the answer of an idle link": sent(Opcode.PONG, b""),
    "subscribe": sent(Opcode.TEXT, _SUBSCRIBE),
    "subscribe, compressed": sent(Opcode.TEXT, _SUBSCRIBE, deflate=True),
    "message of 4096 bytes": sent(Opcode.TEXT, b" " * _MAX_SIZE),
    "11 fragments": fragments([b"abcd"] * 10) + sent(Opcode.CONT, b""),
    "10000 empty fragments at once": fragments([b""] * 10_000),
}


def cpu_us(act: Callable[[], object]) -> float:
    """Return the CPU time of one call in microseconds: the best round of several, which is the least disturbed."""
    best = float("inf")
    for _ in range(_REPEATS):
        calls, began = 0, time.process_time()
        while (spent := time.process_time() - began) < _ROUND_S or not calls:
            act()
            calls += 1
        best = min(best, spent / calls)
    return best * 1e6


def reading_us(make: Callable[[], Reader], wire: bytes, *, unfinished: bool) -> float:
    reader = make()

    def read() -> None:
        for _ in (make() if unfinished else reader).feed(wire):
            pass

    return cpu_us(read)


def held_bytes(make: Callable[[], Reader], wire: bytes) -> float:
    """Return what a reader holds after some bytes of its client."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        readers = [make() for _ in range(_READERS)]
        for reader in readers:
            for _ in reader.feed(wire):
                pass
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / _READERS
    finally:
        tracemalloc.stop()


def accepting() -> Callable[[], object]:
    """Return a call that checks a handshake; one protocol for each would leave a cycle of objects to collect."""
    offer = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    protocol = ServerProtocol(extensions=[offer])
    return lambda: protocol.process_request(Request("/", Headers(_HANDSHAKE)))


def row(name: str, ours: float, theirs: float, unit: str) -> list[str]:
    return [name, f"{ours:.1f} {unit}", f"{theirs:.1f} {unit}", f"**{ours / theirs:.2f}**"]


def main() -> None:
    heading("A WebSocket client's frames and handshake", "python -m bench.client_frames")
    rows = []
    for name, wire in _WIRES.items():
        ours, theirs = (reading_us(make, wire, unfinished="empty" in name) for make in (relay_reader, WholeProtocol))
        rows.append(row(name, ours, theirs, "µs"))
    rows.append(row("handshake", cpu_us(lambda: shake_hands(_HANDSHAKE, subprotocol="t")), cpu_us(accepting()), "µs"))
    for name, wire in {
        "held by a link that has sent nothing": b"",
        "held after a message and a pong": _WIRES["subscribe, compressed"] + sent(Opcode.PONG, b""),
        "held after half a message": _WIRES["subscribe"][:20],
    }.items():
        rows.append(row(name, held_bytes(relay_reader, wire), held_bytes(WholeProtocol, wire), "bytes"))
    table(["", "relay", "ServerProtocol", "ratio"], rows)


if __name__ == "__main__":
    main()
