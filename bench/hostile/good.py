"""The good client, and the publisher of its rounds: the delay of each round, over three protocols, and of new links.

One thread publishes at a steady rate and another reads, in one process with one clock. A third opens a link every half
second, over each protocol in turn, as newcomers do.
"""

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import grpc

from bench.fanout.publisher import Publisher
from bench.hostile.http2_floods import begin, follow
from bench.hostile.sockets import Target, upgrade
from rounds import Round
from rounds import datastream_pb2 as pb
from rounds.subjects import LIVE_SUBJECTS

_RATE: Final = 100
_LOG: Final = "log"
_ID: Final = re.compile(rb'"round_id":(\d+),')
_GRPC_ID: Final = re.compile(rb"\x08([\x80-\xff]*[\x00-\x7f])\x12\x05crash", re.DOTALL)
"""The first two fields of a round in protobuf."""
_LAST_S: Final = 30.0
"""The longest to wait for rounds after the last one was published."""
NEWCOMER_S: Final = 10.0
"""A link that is not open within this is counted as refused."""
_NEWCOMER_EVERY_S: Final = 0.5
_READ_S: Final = 0.2
_ENDED_S: Final = 3.0
"""The same when a link was ended: what it missed will not come."""
_LOOK_S: Final = 0.01


@dataclass
class Phase:
    """What was measured while an attack ran, or while none did."""

    delays_s: list[float] = field(default_factory=list)
    """From publishing a round to receiving it, of every round on every link; of those that did not come, 30 s."""
    log_delays_s: list[float] = field(default_factory=list)
    """From publishing a round to receiving it from nats-server: what it takes without a relay."""
    ended: int = 0
    """How often a link of the good client was ended."""
    missing: int = 0
    """Rounds that did not come."""
    openings_s: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    """Newcomers that did not get in, by protocol."""


class GoodClient:
    """Three links that stay open, over all phases, and a subscription to the log's live rounds."""

    def __init__(self, target: Target, nats_port: int) -> None:
        self._target = target
        self._publisher = Publisher(nats_port)
        self._number = 0
        self._links = {name: self._open(name) for name in ("ws", "sse", "grpc")} | {_LOG: _subscribed(nats_port)}

    def measure(self, seconds: float) -> Phase:
        """Publish for so long, and wait for what was published."""
        phase = Phase()
        first, sent = self._number + 1, dict[int, float]()
        stop = threading.Event()
        readers = [
            threading.Thread(target=self._read, args=(name, sent, phase, stop), daemon=True) for name in self._links
        ]
        newcomers = threading.Thread(target=self._newcomers, args=(phase, stop), daemon=True)
        for thread in (*readers, newcomers):
            thread.start()
        began = time.monotonic()
        for at in range(round(seconds * _RATE)):
            time.sleep(max(0.0, began + at / _RATE - time.monotonic()))
            self._number += 1
            sent[self._number] = time.monotonic()
            self._publisher.publish([_round(self._number)])
        wanted = (self._number - first + 1) * (len(self._links) - 1)
        published = time.monotonic()
        while len(phase.delays_s) < wanted:
            time.sleep(_LOOK_S)
            if time.monotonic() - published > (_LAST_S if not phase.ended else _ENDED_S):
                break
        stop.set()
        for thread in (*readers, newcomers):
            thread.join(NEWCOMER_S + 1)
        phase.missing = max(0, wanted - len(phase.delays_s))
        phase.delays_s += [_LAST_S] * phase.missing
        return phase

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    def _read(self, name: str, sent: dict[int, float], phase: Phase, stop: threading.Event) -> None:
        link = self._links[name]
        link.settimeout(_READ_S)
        rest = b""
        while not stop.is_set():
            try:
                data = link.recv(1 << 18)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            now = time.monotonic()
            if not data:
                phase.ended += 1
                link, rest = self._reopen(name), b""
                link.settimeout(_READ_S)
                self._links[name] = link
                continue
            rest += data
            end = 0
            for found in (_GRPC_ID if name == "grpc" else _ID).finditer(rest):
                end = found.end()
                number = _varint(found[1]) if name == "grpc" else int(found[1])
                if (at := sent.get(number)) is not None:
                    (phase.log_delays_s if name == _LOG else phase.delays_s).append(now - at)
            if b"\x89\x00" in data and name == "ws":  # a ping of the relay
                link.sendall(bytes([0x8A, 0x80, 0, 0, 0, 0]))
            if b"PING\r\n" in data and name == _LOG:
                link.sendall(b"PONG\r\n")
            rest = rest[max(end, len(rest) - 40) :]

    def _reopen(self, name: str) -> socket.socket:
        while True:
            try:
                return self._open(name)
            except (OSError, KeyError):
                time.sleep(_LOOK_S)

    def _open(self, name: str) -> socket.socket:
        if name == "grpc":
            link = begin(self._target, follow(self._target))
            if not link.recv(4096):
                raise ConnectionError("refused")
            return link
        link = self._target.connect()
        if name == "ws":
            link.sendall(upgrade("/ws/crash", self._target.token()))
        else:
            link.sendall(self._target.head("GET", "/sse/crash"))
        if not link.recv(4096).startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
            raise ConnectionError("refused")
        return link

    def _newcomers(self, phase: Phase, stop: threading.Event) -> None:
        while not stop.wait(_NEWCOMER_EVERY_S):
            for name in ("ws", "sse", "grpc"):
                began = time.monotonic()
                try:
                    if name == "grpc":
                        self._call()
                    else:
                        self._open(name).close()
                    phase.openings_s.append(time.monotonic() - began)
                except (OSError, KeyError, grpc.RpcError):
                    phase.refused[name] = phase.refused.get(name, 0) + 1

    def _call(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self._target.grpc_port}", options=options) as channel:
            stream = channel.unary_stream(
                "/datastream.DataStream/StreamByGame",
                request_serializer=pb.StreamByGameRequest.SerializeToString,
                response_deserializer=pb.Round.FromString,
            )
            request = pb.StreamByGameRequest(game_slug="crash")
            call = stream(request, metadata=(("x-api-key", self._target.key),), timeout=NEWCOMER_S)
            call.initial_metadata()  # the relay sends it when it follows the log for this stream
            call.cancel()


def _varint(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(data))


def _subscribed(nats_port: int) -> socket.socket:
    """Subscribe to live rounds as relays do; return the connection to nats-server."""
    connection = socket.create_connection(("127.0.0.1", nats_port))
    connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b 1\r\nPING\r\n' % LIVE_SUBJECTS.encode())
    answer = b""
    while not answer.endswith(b"PONG\r\n"):
        answer += connection.recv(4096)
    return connection


def _round(number: int) -> Round:
    return Round.make(
        round_id=number,
        game_slug="crash",
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras='{"point":"2.50"}',
        timestamp=time.time_ns() // 1_000_000,
    )
