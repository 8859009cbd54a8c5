"""The servers that are compared: a relay, Centrifugo, a server of grpc-go, and a bare loop in C.

Each is a process that gets rounds in the cheapest way that it has, and has a door for each of its protocols.
"""

import http.client
import itertools
import json
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec

from bench._nats import NatsServer
from bench._relay import RelayProcess, relay
from bench._rounds import endless
from bench.fanout.ceiling import Ceiling, c_loop
from bench.fanout.publisher import Publisher
from bench.fanout.wire import GRPC, WIRES, Wire, greeting
from bench.peers.client import Door, Protocol
from bench.peers.programs import program
from relay.rpc.wire import round_bytes
from rounds import Round
from rounds.round import with_cursor

_CURSOR: Final = "mwv9bzxo-100042"
"""In rounds of servers that have no cursors, so that they are as long."""
_STREAM_ALL: Final = "/datastream.DataStream/StreamAll"
_CHANNEL: Final = "rounds"
_SECRET: Final = "not a secret: it is for a benchmark"  # noqa: S105 - so it is
_REPEATED: Final = 14 * 100
"""Rounds that the server of grpc-go has, which it repeats."""
_START_S: Final = 20.0
_KEEPALIVE_S: Final = 3600
_WIRES: Final[dict[Protocol, Wire]] = {"websocket": WIRES[0], "sse": WIRES[1], "grpc": GRPC}


class Server:
    """A server under test."""

    name: str
    pid: int
    protocols: tuple[Protocol, ...]

    def __init__(self) -> None:
        self.published: list[Round] = []
        self._rounds = endless(first_id=1)

    def door(self, protocol: Protocol, *, fresh: int = 0, after: str = "", per_connection: int = 1) -> Door:
        """Return how streams are opened: with `fresh` credentials, or one for all; after a cursor."""
        raise NotImplementedError

    def publish(self, count: int) -> None:
        """Publish so many rounds at once."""
        batch = list(itertools.islice(self._rounds, count))
        self.published += batch
        self.send(batch)

    def send(self, rounds: Sequence[Round]) -> None:
        """Hand rounds to the server."""
        raise NotImplementedError

    def check(self, protocol: Protocol, messages: Sequence[bytes], first: int) -> None:
        """Compare what streams got with what was published, from round number `first` on.

        Raises:
            SystemExit: They differ.
        """
        published = self.published[first:]
        if len(messages) != len(published):
            raise SystemExit(f"{self.name}: {len(messages)} messages for {len(published)} rounds")
        for message, round_ in zip(messages, published, strict=True):
            got = self.read(protocol, message)
            got.pop("cursor")
            if got != msgspec.to_builtins(round_):
                raise SystemExit(f"{self.name}: published {round_}, received {got}")

    def read(self, protocol: Protocol, message: bytes) -> dict[str, Any]:
        """Read a round, and its cursor, out of a message."""
        return dict(json.loads(message)) if protocol != "grpc" else GRPC.round_of(message)


class Relay(Server):
    """Ours. Rounds come from JetStream, which stores them first."""

    name = "stream-relay"
    protocols = ("websocket", "sse", "grpc")

    def __init__(self, process: RelayProcess, publisher: Publisher) -> None:
        super().__init__()
        self._process, self._publisher = process, publisher
        self.pid = process.pid
        self._rounds = endless(first_id=time.time_ns() // 1000)  # ids of no earlier relay

    def door(self, protocol: Protocol, *, fresh: int = 0, after: str = "", per_connection: int = 1) -> Door:
        wire = _WIRES[protocol]
        if protocol == "grpc":
            return Door(
                self._process.grpc_port,
                [greeting(_STREAM_ALL, self._process.key, streams=per_connection, message=_request(after))],
                per_connection=per_connection,
            )
        credentials = self._process.tokens(fresh) if fresh else [self._process.token()]
        requests = [wire.request(one) for one in credentials]
        if after:
            requests = [_after(request, after) for request in requests]
        return Door(self._process.port, requests)

    def send(self, rounds: Sequence[Round]) -> None:
        self._publisher.publish(rounds)


class GrpcGo(Server):
    """A server of grpc-go that sends what it has read beforehand."""

    name = "grpc-go"
    protocols = ("grpc",)

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        super().__init__()
        self._process, self._port = process, port
        self.pid = process.pid
        self._rounds = itertools.cycle(itertools.islice(endless(), _REPEATED))

    def door(self, protocol: Protocol, *, fresh: int = 0, after: str = "", per_connection: int = 1) -> Door:
        request = greeting(_STREAM_ALL, "", streams=per_connection)
        return Door(self._port, [request], per_connection=per_connection)

    def send(self, rounds: Sequence[Round]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % len(rounds))
        self._process.stdin.flush()


class Centrifugo(Server):
    """Centrifugo with its broker in memory. Rounds are published with its HTTP API, those of a burst in one request."""

    name = "Centrifugo"
    protocols = ("websocket", "sse", "grpc")

    def __init__(self, pid: int, port: int, grpc_port: int) -> None:
        super().__init__()
        self.pid = pid
        self._port, self._grpc_port = port, grpc_port
        self._api = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_S)

    def door(self, protocol: Protocol, *, fresh: int = 0, after: str = "", per_connection: int = 1) -> Door:
        tokens = [_token(number, protocol) for number in range(max(1, fresh))]
        if protocol == "grpc":
            path = "/centrifugal.centrifugo.unistream.CentrifugoUniStream/Consume"
            requests = [
                greeting(path, "", streams=per_connection, message=_field(1, token))  # ConnectRequest.token
                for token in tokens
            ]
            return Door(self._grpc_port, requests, peer="centrifugo", per_connection=per_connection)
        if protocol == "sse":
            requests = [
                f"GET /connection/uni_sse?cf_connect=%7B%22token%22%3A%22{token}%22%7D HTTP/1.1\r\nHost: bench\r\n"
                "Accept: text/event-stream\r\n\r\n".encode()
                for token in tokens
            ]
            return Door(self._port, requests, peer="centrifugo")
        upgrade = WIRES[0].request("").replace(b"GET /ws ", b"GET /connection/websocket ")
        upgrade = upgrade.replace(b"Sec-WebSocket-Protocol: \r\n", b"")
        subscribe: dict[str, Any] = {"channel": _CHANNEL}
        if after:
            epoch, _, offset = after.rpartition("-")
            subscribe |= {"recover": True, "epoch": epoch, "offset": int(offset)}
        commands = ({"id": 1, "connect": {"token": token}} for token in tokens)
        thens = [_masked(_json(command) + b"\n" + _json({"id": 2, "subscribe": subscribe})) for command in commands]
        return Door(self._port, [upgrade], thens=thens, peer="centrifugo")

    def send(self, rounds: Sequence[Round]) -> None:
        documents = [with_cursor(round_.to_json(), _CURSOR) for round_ in rounds]
        publishing = [b'{"publish":{"channel":"%b","data":%b}}' % (_CHANNEL.encode(), text) for text in documents]
        self.ask("batch", b'{"commands":[%b]}' % b",".join(publishing))

    def place(self) -> str:
        """Return the cursor of the newest publication."""
        found = self.ask("history", _json({"channel": _CHANNEL, "limit": 0}))["result"]
        return f"{found['epoch']}-{found.get('offset', 0)}"

    def ask(self, method: str, body: bytes) -> dict[str, Any]:
        """Call the HTTP API."""
        try:
            answer = self._answer(method, body)
        except ConnectionError:  # it was idle for too long, and was closed
            self._api.close()
            answer = self._answer(method, body)
        data = answer.read()
        if answer.status != 200 or b'"error"' in data:
            raise SystemExit(f"Centrifugo answered {answer.status} {data[:300]!r}")
        found: dict[str, Any] = json.loads(data)
        return found

    def _answer(self, method: str, body: bytes) -> http.client.HTTPResponse:
        self._api.request("POST", f"/api/{method}", body, {"Content-Type": "application/json"})
        return self._api.getresponse()

    def read(self, protocol: Protocol, message: bytes) -> dict[str, Any]:
        return dict(json.loads(message))


class BareLoop(Server):
    """A loop of ``send()`` in C, which is given the bytes that the relay would send."""

    name = "bare loop in C"
    protocols = ("websocket", "sse", "grpc")

    def __init__(self, loop: Ceiling, protocol: Protocol) -> None:
        super().__init__()
        self._loop, self._protocol = loop, protocol
        self.pid = loop.pid

    def door(self, protocol: Protocol, *, fresh: int = 0, after: str = "", per_connection: int = 1) -> Door:
        return Door(self._loop.port, [b"-"], peer="bare")

    def send(self, rounds: Sequence[Round]) -> None:
        wire = _WIRES[self._protocol]
        documents = [with_cursor(round_.to_json(), _CURSOR) for round_ in rounds]
        if self._protocol == "grpc":
            messages = [round_bytes(round_, _CURSOR) for round_ in rounds]
        elif self._protocol == "sse":
            messages = [b"id: %b\ndata: %b" % (_CURSOR.encode(), text) for text in documents]
        else:
            messages = documents
        self._loop.write(wire.framed(messages))


# --- processes -------------------------------------------------------------------------------------------------------


@contextmanager
def relayed(nats: NatsServer, **settings: str) -> Iterator[Relay]:
    """Run a relay on the cores that this process is on."""
    with (
        relay(nats.url, RELAY_GRPC_KEEPALIVE_S=str(_KEEPALIVE_S), **settings) as process,
        Publisher(nats.port) as publisher,
    ):
        yield Relay(process, publisher)


@contextmanager
def grpc_go() -> Iterator[GrpcGo]:
    """Run the server of grpc-go, likewise."""
    with tempfile.NamedTemporaryFile() as file:
        for round_ in itertools.islice(endless(), _REPEATED):
            message = round_bytes(round_, _CURSOR)
            file.write(struct.pack("!BI", 0, len(message)) + message)
        file.flush()
        command: list[str | Path] = [program("grpcserver"), file.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield GrpcGo(process, int(process.stdout.readline()))
            finally:
                process.kill()


@contextmanager
def centrifugo(*, history: int = 0) -> Iterator[Centrifugo]:
    """Run Centrifugo, likewise; it keeps so many rounds."""
    ports = _free_ports(2)
    settings = {
        "http_server": {"address": "127.0.0.1", "port": ports[0]},
        "http_api": {"insecure": True},
        "client": {
            "token": {"hmac_secret_key": _SECRET},
            "ping_interval": "3600s",
            "pong_timeout": "60s",
            "stale_close_delay": "60s",
            "queue_max_size": 64 << 20,
        },
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": True,
                "history_size": history,
                "history_ttl": "1h" if history else "0s",
                "force_recovery": bool(history),
            }
        },
        "uni_sse": {"enabled": True},
        "uni_grpc": {"enabled": True, "address": "127.0.0.1", "port": ports[1]},
        "usage_stats": {"disabled": True},
        "log": {"level": "error"},
        "health": {"enabled": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_bytes(_json(settings))
        command: list[str | Path] = [program("centrifugo"), "-c", str(Path(folder, "config.json"))]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CENTRIFUGO_")}
        with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL) as process:
            try:
                _wait_listening(process, ports)
                yield Centrifugo(process.pid, *ports)
            finally:
                process.kill()


@contextmanager
def bare_loop(protocol: Protocol, count: int) -> Iterator[BareLoop]:
    """Run the bare loop in C, likewise."""
    with c_loop(count) as loop:
        yield BareLoop(loop, protocol)


def _wait_listening(process: subprocess.Popen[bytes], ports: Sequence[int]) -> None:
    deadline = time.monotonic() + _START_S
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{process.args!r} did not start") from None
                time.sleep(0.01)


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


# --- bytes -----------------------------------------------------------------------------------------------------------


def _request(after: str) -> bytes:
    return _field(2, after) if after else b""  # StreamAllRequest.after


def _after(request: bytes, cursor: str) -> bytes:
    path, _, rest = request.partition(b" HTTP/1.1")
    return b"%b%bafter=%b HTTP/1.1%b" % (path, b"&" if b"?" in path else b"?", cursor.encode(), rest)


def _token(number: int, protocol: Protocol) -> str:
    """Return a token of Centrifugo; those of its one-way protocols also subscribe."""
    claims: dict[str, Any] = {"sub": f"user{number}", "exp": int(time.time()) + 600}
    return jwt.encode(claims if protocol == "websocket" else claims | {"channels": [_CHANNEL]}, _SECRET, "HS256")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _masked(text: bytes) -> bytes:
    """Return a text frame of a client; a mask of zeros changes nothing."""
    return b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text


def _field(number: int, text: str) -> bytes:
    """Return a protobuf field of text."""
    size = len(text)
    return bytes((number << 3 | 2, *((size & 127 | 128, size >> 7) if size > 127 else (size,)))) + text.encode()
