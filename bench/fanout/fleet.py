"""Thousands of links in one process, for little CPU: raw sockets, one epoll, no object per message.

All links subscribe to the same rounds, so all must get the same messages. The first to get a message extends the
`reference`; those of the others are compared with it, however they are cut into frames, chunks and reads. Links that
have read the same and read the same bytes next are at the same place, so each such step is made once. `Fleet.check`
then checks the reference itself, message by message.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from bench.fanout.wire import BadWire, Rest, Wire
from rounds import Round

_AT_ONCE: Final = 64
"""Handshakes under way at a time."""
_READ_BYTES: Final = 1 << 16
_PATIENCE_S: Final = 20.0
_STEPS: Final = 256
"""Steps that are remembered: more than there are between the first link and the last."""


class _Place(NamedTuple):
    """How far a link is."""

    messages: int
    rest: Rest


_START: Final = _Place(0, Rest())


class Fleet:
    """Links of one protocol."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.reference: list[bytes] = []
        """All messages so far, without what frames them."""
        self.heartbeats = 0
        self.received = 0
        """Bytes of all links, since their handshakes."""
        self._sockets: dict[int, socket.socket] = {}
        self._places: list[_Place] = []  # by file descriptor
        self._steps: dict[tuple[_Place, bytes], tuple[_Place, int, bytes]] = {}
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
        self._places.extend([_START] * (number + 1 - len(self._places)))
        self._places[number] = _START
        self._epoll.register(number, select.EPOLLIN)
        if early:
            self._places[number] = self._step(number, _START, early)

    # --- rounds --------------------------------------------------------------------------------------------------

    def receive(self, messages: int) -> float:
        """Read until every link has `messages` of them since the start; return when the last one had (monotonic).

        Raises:
            BadWire: They did not come in time, or more than these came, or others than the first link got.
        """
        waiting = sum(self._places[number].messages < messages for number in self._sockets)
        deadline = time.monotonic() + _PATIENCE_S
        while waiting:
            events = self._epoll.poll(_PATIENCE_S)
            # The deadline counts also when something comes, since heartbeats always do.
            if not events or time.monotonic() > deadline:
                raise BadWire(f"{waiting} of {len(self)} links did not get message {messages} within {_PATIENCE_S} s")
            for number, _ in events:
                before, now = self._read(number)
                waiting -= before < messages <= now
        if len(self.reference) > messages:
            raise BadWire(f"{len(self.reference)} messages came where {messages} were sent")
        return time.monotonic()

    def pace(self, send: Callable[[], object], *, rate: float, count: int) -> list[float]:
        """`send` one message `rate` times a second; return the seconds until the last link had each of them."""
        first, start = len(self.reference), time.monotonic()
        missing = [len(self)] * count
        waits_s = [0.0] * count
        sent_s: list[float] = []
        last = start + count / rate + _PATIENCE_S
        while missing[-1]:
            now_s = time.monotonic()
            if now_s > last:
                raise BadWire(f"{missing[-1]} of {len(self)} links did not get all messages within {_PATIENCE_S} s")
            while len(sent_s) < count and now_s >= start + len(sent_s) / rate:
                sent_s.append(now_s)
                send()
            due_s = start + len(sent_s) / rate - now_s if len(sent_s) < count else _PATIENCE_S
            for number, _ in self._epoll.poll(max(0.0, due_s)):
                for message in range(*self._read(number)):
                    missing[message - first] -= 1
                    if not missing[message - first]:
                        waits_s[message - first] = time.monotonic() - sent_s[message - first]
        return waits_s

    def idle(self, seconds: float) -> None:
        """Answer heartbeats for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for number, _ in self._epoll.poll(left):
                self._read(number)

    def _read(self, number: int) -> tuple[int, int]:
        """Read once; return how many messages the link had before, and has now."""
        before, data = self._places[number], os.read(number, _READ_BYTES)
        self.received += len(data)
        self._places[number] = after = self._step(number, before, data)
        return before.messages, after.messages

    def _step(self, number: int, place: _Place, data: bytes) -> _Place:
        """Return where a link is after it has read `data`, and answer for it."""
        known = self._steps.get((place, data))
        if known is None:
            if not data:
                raise BadWire("the relay closed a link")
            known = self._compared(place, data)
            if len(self._steps) >= _STEPS:
                del self._steps[next(iter(self._steps))]
            self._steps[place, data] = known
        place, heartbeats, answer = known
        self.heartbeats += heartbeats
        if answer:
            os.write(number, answer)
        return place

    def _compared(self, place: _Place, data: bytes) -> tuple[_Place, int, bytes]:
        """Compare the messages that `data` completes with the reference, or extend it by them."""
        messages, heartbeats, answer, rest = self.wire.take(place.rest, data)
        end = place.messages + len(messages)
        old = self.reference[place.messages : end]
        if messages[: len(old)] != old:
            raise BadWire(f"a link got other messages after {place.messages}: {messages[:2]!r}, not {old[:2]!r}")
        self.reference += messages[len(old) :]
        return _Place(end, rest), heartbeats, answer

    # --- checks --------------------------------------------------------------------------------------------------

    def pieces(self, first: int, at_once: int) -> list[bytes]:
        """Writes that deliver the reference from message number `first` (from 0) on, `at_once` messages with each."""
        starts = range(first, len(self.reference), at_once)
        return [self.wire.framed(self.reference[start : start + at_once]) for start in starts]

    def check(self, published: Sequence[Round]) -> int:
        """Check that every link has every published round once and in order, and nothing else; return the bytes.

        Raises:
            BadWire: A round is missing, doubled, swapped or changed, or its sequence does not follow the one before.
        """
        count = len(self.reference)
        places = {number: self._places[number] for number in self._sockets}
        behind = [number for number, (messages, rest) in places.items() if (messages, *rest[:2]) != (count, b"", b"")]
        if behind:
            raise BadWire(f"{len(behind)} links have less than others, or half a message")
        if count != len(published):
            raise BadWire(f"{count} messages for {len(published)} rounds")
        sequences = set()
        for number, (message, round_) in enumerate(zip(self.reference, published, strict=True)):
            got = self.wire.round_of(message)
            sequences.add(int(got.pop("cursor").rpartition("-")[2]) - number)
            if got != msgspec.to_builtins(round_):
                raise BadWire(f"published {round_}, received {got}")
        if len(sequences) > 1:
            raise BadWire("cursors are not consecutive")
        return sum(map(len, self.reference)) * len(self)
