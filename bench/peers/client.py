"""The compiled client: streams of one server in a process of its own, which compares all that they get."""

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from bench.peers.programs import program

Protocol = Literal["websocket", "sse", "grpc"]

_NS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Door:
    """How the streams of one protocol are opened at one server."""

    port: int
    requests: Sequence[bytes]
    """What each connection sends first, in turn."""
    thens: Sequence[bytes] = ()
    """What each sends when that is answered, in turn."""
    peer: str = ""
    """What the client must know about the server's messages: ``centrifugo``, ``bare``, or nothing."""
    per_connection: int = 1
    """Streams of a connection."""


class Streams:
    """Streams to one server. The process is on the cores that this one is on when it is entered."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._process: subprocess.Popen[bytes] | None = None
        self.count = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([program("client")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def open(self, door: Door, count: int, *, at_once: int = 64) -> None:
        """Open `count` more; return when all are open.

        Raises:
            SystemExit: The server refused; the client has printed why.
        """
        self._ask(**self._opening(door, count, at_once))
        self.count += count

    def storm(self, door: Door, count: int, messages: int) -> float:
        """Open `count` at the same moment; return the seconds until each has so many messages."""
        began = self._ask(**self._opening(door, count, count), Storm=True)["began_ns"]
        self.count += count
        return self.wait(messages)[-1] - float(began) * _NS

    def wait(self, messages: int) -> list[float]:
        """Wait until every stream has so many messages; return when the last one had each (monotonic seconds)."""
        return [at * _NS for at in self._ask(Wait=messages)["at_ns"]]

    def messages(self, first: int = 0) -> list[bytes]:
        """Return what each stream got, from message number `first` on: all got the same, or the client had ended."""
        return [base64.b64decode(text) for text in self._ask(Dump=first)["messages"]]

    def counts(self) -> list[int]:
        """Return how many messages each stream has."""
        return list(self._ask(Counts=True)["counts"])

    def retries(self) -> int:
        """Return how many connections of a storm were opened again, since the server had ended them."""
        return int(self._ask(Counts=True)["retries"])

    def _opening(self, door: Door, count: int, at_once: int) -> dict[str, Any]:
        return {
            "Open": count,
            "Protocol": self._protocol,
            "Peer": door.peer,
            "Port": door.port,
            "Requests": [base64.b64encode(request).decode() for request in door.requests],
            "Thens": [base64.b64encode(then).decode() for then in door.thens],
            "PerStreams": door.per_connection,
            "AtOnce": at_once,
        }

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the client ended, for the reason above")
        answer: dict[str, Any] = json.loads(line)
        return answer
