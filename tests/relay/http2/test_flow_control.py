"""Bodies arrive whole: any windows, any cuts, several streams, resets. The client is `h2`, which checks each frame."""

from dataclasses import dataclass, field
from random import Random
from typing import Final

import pytest
from h2.events import DataReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from relay.http2 import DataBatch
from tests.relay.http2.peers import ANSWER, TRAILERS, Pair, Received, Recorder

_PATTERN: Final = Random(7).randbytes(200_000)
_STREAMS: Final = 3

_sizes = st.one_of(st.integers(0, 300), st.integers(0, 70_000), st.sampled_from([16_384, 16_385, 32_768, 65_535]))
_stream = st.integers(0, _STREAMS - 1)
_steps = st.one_of(
    st.tuples(st.just("write"), _stream, _sizes),
    st.tuples(st.just("share"), st.just(0), _sizes),
    st.tuples(st.just("grow"), _stream, st.integers(1, 70_000)),
    st.tuples(st.just("grow all"), st.just(0), st.integers(1, 70_000)),
    st.tuples(st.just("window"), st.just(0), st.integers(0, 70_000)),
    st.tuples(st.just("read"), st.just(0), st.integers(1, 100_000)),
    st.tuples(st.just("reset"), _stream, st.just(0)),
    st.tuples(st.just("abort"), _stream, st.just(0)),
    st.tuples(st.just("end"), _stream, st.booleans().map(int)),
)


@dataclass
class Sent:
    """What was written to one stream."""

    stream_id: int
    received: Received
    body: bytearray = field(default_factory=bytearray)
    is_reset: bool = False
    has_trailers: bool | None = None  # None: it has not ended

    def write(self, batch: DataBatch) -> None:
        if not self.is_reset and self.has_trailers is None:
            self.body += batch.payload
        self.received.stream.write(batch)


class Run:
    """Does the steps of an example."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.streams: list[Sent] = []
        self._at = 0
        self._needs_trailers = False
        for _ in range(_STREAMS):
            stream_id = pair.request()
            self.streams.append(Sent(stream_id, pair.service.requests[-1]))
            self.streams[-1].received.stream.send_headers(ANSWER)

    def do(self, name: str, number: int, size: int) -> None:
        sent, client = self.streams[number], self.pair.client
        match name:
            case "write":
                sent.write(self._batch(size))
            case "share":
                batch = self._batch(size)
                for each in self.streams:
                    each.write(batch)
            case "read":
                self.pair.download(size)
            case "grow" if not sent.is_reset:
                self._grow(size, sent.stream_id)
            case "grow all":
                self._grow(size, None)
            case "window":
                client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
                self._needs_trailers = True  # h2 as a client refuses even an empty frame in a window below zero
            case "reset" | "abort" | "end" if not sent.is_reset and sent.has_trailers is None:
                self._end(name, sent, bool(size) or self._needs_trailers)
        self.pair.upload()

    def finish(self) -> None:
        """End each stream, and open all windows until everything has come."""
        for number, sent in enumerate(self.streams):
            if not sent.is_reset and sent.has_trailers is None:
                self.do("end", number, 1)
        for _ in range(50):
            self.pair.settle()
            self._grow(200_000, None)
            for sent in self.streams:
                if not self.pair.has_ended(sent.stream_id):
                    self._grow(200_000, sent.stream_id)
            self.pair.upload()
            if all(sent.is_reset or self.pair.has_ended(sent.stream_id) for sent in self.streams):
                return
        raise AssertionError("a stream did not end, though its windows are open")

    def _end(self, name: str, sent: Sent, has_trailers: bool) -> None:
        if name == "end":
            sent.has_trailers = has_trailers
            sent.received.stream.end(TRAILERS if has_trailers else None)
            return
        sent.is_reset = True
        if name == "reset":
            self.pair.client.reset_stream(sent.stream_id)
        else:
            sent.received.stream.abort()

    def _batch(self, size: int) -> DataBatch:
        self._at = (self._at + 7919) % 100_000
        return DataBatch(_PATTERN[self._at : self._at + size])

    def _grow(self, size: int, stream_id: int | None) -> None:
        try:
            self.pair.client.increment_flow_control_window(size, stream_id)
        except (ProtocolError, KeyError, ValueError):  # the client knows that it has ended
            self.pair.client.state_machine.state = type(self.pair.client.state_machine.state).CLIENT_OPEN


@given(
    st.lists(_steps, min_size=5, max_size=40),
    st.integers(0, 70_000),
    st.booleans(),
    st.lists(st.integers(1, 30_000), max_size=4).map(lambda sizes: [*sizes, 30_000]),
)
def test_every_body_arrives_whole(steps: list[tuple[str, int, int]], window: int, holds: bool, cuts: list[int]) -> None:
    """In order, within the windows, and up to the reset of a stream that was reset; the others do not notice it."""
    pair = Pair(window=window, holds=holds, cuts=cuts)
    run = Run(pair)

    for step in steps:
        run.do(*step)
    run.finish()

    for sent in run.streams:
        body = pair.body(sent.stream_id)
        if sent.is_reset:
            assert sent.body.startswith(body)
        else:
            assert body == sent.body
            assert len(pair.headers(sent.stream_id)) == 1 + bool(sent.has_trailers)
        assert sent.received.stream.queued_bytes == 0
    assert not pair.server.open_streams


@given(
    st.lists(st.tuples(_stream, _sizes, st.none() | st.integers(0, 255)), min_size=5, max_size=20),
    st.lists(st.integers(1, 30_000), max_size=4).map(lambda sizes: [*sizes, 30_000]),
)
def test_every_request_arrives_whole(pieces: list[tuple[int, int, int | None]], cuts: list[int]) -> None:
    """With padding or without; the client's windows are opened as it is handled."""
    pair = Pair(cuts=cuts)
    ids = [pair.request(ended=False) for _ in range(_STREAMS)]
    sent = [bytearray() for _ in ids]
    for number, size, padding in pieces:
        data = _PATTERN[:size]
        while data:
            room = pair.client.local_flow_control_window(ids[number]) - 256
            assert room > 0, "the window is not opened"
            piece, data = data[: min(room, 16_000)], data[min(room, 16_000) :]
            pair.client.send_data(ids[number], piece, pad_length=padding)
            sent[number] += piece
            pair.settle()
    for stream_id in ids:
        pair.client.end_stream(stream_id)
    pair.settle()

    for body, received in zip(sent, pair.service.requests, strict=True):
        assert received.body == body
        assert received.is_complete


@pytest.mark.parametrize("window", [65_535, 5_000])
def test_frames_are_short(window: int) -> None:
    """A client handles a frame when it has all of it: what comes before a cut is of use."""
    pair = Pair(Recorder(), window=window)
    pair.request()
    stream = pair.service.requests[0].stream
    stream.send_headers(ANSWER)
    stream.write(bytes(20_000))
    pair.settle()

    sizes = [len(event.data) for event in pair.events if isinstance(event, DataReceived)]
    assert sum(sizes) == min(window, 20_000)
    assert max(sizes) <= 1024
