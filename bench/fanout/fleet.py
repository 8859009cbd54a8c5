"""Thousands of links in one process, for little CPU: raw sockets, one epoll, no object per message.

All links subscribe to the same rounds, so all must get the same bytes. The first to get a message extends the
`reference`; the bytes of the others are compared with it, in place. `Fleet.check` then checks the reference itself,
message by message.
"""

import itertools
import os
import select
import socket
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from bench.fanout.wire import BadWire, Wire
from rounds import Round

_AT_ONCE: Final = 64
"""Handshakes under way at a time."""
_READ_BYTES: Final = 1 << 16
_PATIENCE_S: Final = 20.0


class Fleet:
    """Links of one protocol."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.reference = bytearray()
        self.ends: list[int] = []
        """Where each message of the reference ends."""
        self.heartbeats = 0
        self._sockets: dict[int, socket.socket] = {}
        self._position: list[int] = []  # by file descriptor: bytes of the reference that the link has
        self._tails: dict[int, bytes] = {}  # the beginning of a message that is not complete yet
        self._epoll = select.epoll()

    def __len__(self) -> int:
        return len(self._sockets)

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._epoll.close()

    # --- handshakes ----------------------------------------------------------------------------------------------

    def connect(self, port: int, count: int, request: Callable[[], bytes]) -> None:
        """Open `count` more links; `request` is called once for every few of them, so that tokens stay fresh."""
        while count > 0:
            greeting = request()
            some = [socket.create_connection(("127.0.0.1", port), _PATIENCE_S) for _ in range(min(count, _AT_ONCE))]
            for sock in some:
                sock.sendall(greeting)
            for sock in some:
                received = b""
                while greeting and (end := self.wire.opening(received)) is None:
                    data = sock.recv(_READ_BYTES)
                    if not data:
                        raise BadWire("closed during the handshake")
                    received += data
                self._take_in(sock, received[end:] if greeting else b"")
            count -= len(some)

    def _take_in(self, sock: socket.socket, early: bytes) -> None:
        sock.setblocking(False)
        number = sock.fileno()
        self._sockets[number] = sock
        self._position.extend([0] * (number + 1 - len(self._position)))
        self._position[number] = 0
        self._epoll.register(number, select.EPOLLIN)
        if early:
            self._with_care(number, early)

    # --- rounds --------------------------------------------------------------------------------------------------

    def receive(self, messages: int) -> float:
        """Read until every link has `messages` of them since the start; return when the last one had (monotonic).

        Raises:
            BadWire: They did not come in time, or more than these came, or other bytes than the first link got.
        """
        position, tails, startswith, read = self._position, self._tails, self.reference.startswith, os.read
        waiting, complete = len(self._sockets), -1
        deadline = time.monotonic() + _PATIENCE_S
        while waiting:
            events = self._epoll.poll(_PATIENCE_S)
            # The deadline counts also when something comes, since heartbeats always do.
            if not events or time.monotonic() > deadline:
                raise BadWire(f"{waiting} of {len(self)} links did not get message {messages} within {_PATIENCE_S} s")
            for number, _ in events:
                data = read(number, _READ_BYTES)
                before = position[number]
                if data and startswith(data, before) and number not in tails:
                    position[number] = now_at = before + len(data)
                else:
                    now_at = self._with_care(number, data)
                    if len(self.ends) > messages:
                        raise BadWire(f"{len(self.ends)} messages came where {messages} were sent")
                    complete = len(self.reference) if len(self.ends) == messages else -1
                if now_at == complete != before:
                    waiting -= 1
        return time.monotonic()

    def idle(self, seconds: float) -> None:
        """Answer heartbeats for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for number, _ in self._epoll.poll(left):
                self._with_care(number, os.read(number, _READ_BYTES))

    def _with_care(self, number: int, data: bytes) -> int:
        """Take bytes that are not simply the next of the reference: new ones, heartbeats, halves of messages."""
        if not data:
            raise BadWire("the relay closed a link")
        wire, reference, ends = self.wire, self.reference, self.ends
        position = self._position[number]
        data = self._tails.pop(number, b"") + data
        start = 0
        while start < len(data):
            if data.startswith(wire.heartbeat, start) and (
                not position or position == ends[bisect_right(ends, position) - 1]
            ):
                self.heartbeats += 1
                start += len(wire.heartbeat)
                if wire.answer:
                    os.write(number, wire.answer)
                continue
            if position < len(reference):
                upto = min(ends[bisect_right(ends, position)] - position, len(data) - start)
                if data[start : start + upto] != reference[position : position + upto]:
                    raise BadWire(f"a link got other bytes at {position}: {data[start : start + 80]!r}")
            else:
                end = wire.message_end(data, start)
                if end is None:
                    self._tails[number] = data[start:]
                    break
                upto = end - start
                reference += data[start:end]
                ends.append(len(reference))
            position += upto
            start += upto
        self._position[number] = position
        return position

    # --- checks --------------------------------------------------------------------------------------------------

    def pieces(self, first: int, at_once: int) -> list[bytes]:
        """The reference from message number `first` (from 0) on, cut after every `at_once` messages."""
        edges = [self.ends[first - 1] if first else 0, *self.ends[first + at_once - 1 :: at_once]]
        return [bytes(self.reference[start:end]) for start, end in itertools.pairwise(edges)]

    def check(self, published: Sequence[Round]) -> int:
        """Check that every link has every published round once and in order, and nothing else; return the bytes.

        Raises:
            BadWire: A round is missing, doubled, swapped or changed, or its sequence does not follow the one before.
        """
        behind = [number for number in self._sockets if self._position[number] != len(self.reference)]
        if behind or self._tails:
            raise BadWire(f"{len(behind)} links have less than others, {len(self._tails)} have half a message")
        messages = self.pieces(0, 1)
        if len(messages) != len(published):
            raise BadWire(f"{len(messages)} messages for {len(published)} rounds")
        sequences = set()
        for number, (message, round_) in enumerate(zip(messages, published, strict=True)):
            got = self.wire.round_of(message)
            sequences.add(int(got.pop("cursor").rpartition("-")[2]) - number)
            if got != {name: getattr(round_, name) for name in round_.__struct_fields__}:
                raise BadWire(f"published {round_}, received {got}")
        if len(sequences) > 1:
            raise BadWire("cursors are not consecutive")
        return len(self.reference) * len(self)
