"""In which share an HTTP/2 connection is, and what it holds: without sockets."""

from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from relay.admission.held_bytes import HeldBytes
from relay.admission.strangers import Share
from relay.http2 import Http2Code, Http2Connections, Http2Limits, Http2Stream
from relay.http2.guards.fault_reports import FaultReports
from relay.http2.guards.guarded_http2 import ConnectionGuards, GuardedHttp2
from relay.http2.guards.http1_refusal import http1_refusal
from relay.http2.header_blocks import header_block
from relay.http2.http2_frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    FrameKind,
    frame,
    goaway_frame,
    header_frames,
    reset_frame,
    settings_frame,
)
from tests.relay.http2.peers import ANSWER, REQUEST, Clock, MemoryTransport, Recorder

_SETTINGS: Final = settings_frame({})
_BLOCK: Final = header_block(REQUEST)


class Port:
    """Connections of one port."""

    def __init__(self, *, strangers: int = 4, guests: int | None = 4, held: int = 1 << 20, streams: int = 100) -> None:
        """Open none yet. `guests` None: the port has a number of connections of its own."""
        self.strangers = Share(strangers)
        self.guests = self.strangers if guests is None else Share(guests)
        self.held = HeldBytes(held)
        self.clock = Clock()
        self.service = Recorder()
        self.reports = FaultReports()
        limits = Http2Limits(streams=streams, end_s=0.1)  # looks are frequent
        self.connections = Http2Connections(limits, clock=self.clock, on_fault=self.reports.add)
        self._guards = ConnectionGuards(self.strangers, self.guests, self.held)

    def connect(self, address: str = "192.0.2.1", *, begins: bool = True) -> "Client":
        server = GuardedHttp2(self.service, self.connections, self._guards)
        client = Client(self, server, _At(address))
        server.connection_made(client.transport)
        if begins:
            client.send(PREFACE + _SETTINGS)
        return client


class _At(MemoryTransport):
    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 5) if name == "peername" else default


class Client:
    """One of them."""

    def __init__(self, port: Port, server: GuardedHttp2, transport: MemoryTransport) -> None:
        self.server, self.transport = server, transport
        self._port = port
        self._next_id = 1

    def send(self, data: bytes) -> None:
        has_more = self.server.data_received(data)
        while has_more:
            has_more = self.server.data_received(b"")

    def request(self) -> Http2Stream:
        self.send(header_frames(self._next_id, _BLOCK, ended=True))
        self._next_id += 2
        stream = self._port.service.requests[-1].stream
        stream.send_headers(ANSWER)
        return stream

    def leave(self) -> None:
        report = self.server.connection_lost(None)
        if report is not None:
            report()

    @property
    def is_open(self) -> bool:
        return not self.transport.is_closed


async def test_connection_is_a_stranger_then_a_guest_then_uncounted() -> None:
    """As its streams are: a link is counted by admission, and a guest rests when no stream has its credential."""
    port = Port()
    client = port.connect()

    def counts() -> tuple[int, int, bool]:
        return port.strangers.count, port.guests.count, port.guests.has_idle

    assert counts() == (1, 0, False)
    request, link = client.request(), client.request()
    assert counts() == (1, 0, False)
    assert request.credential_accepted()
    assert counts() == (0, 1, False)
    assert link.credential_accepted()
    link.became_link()
    assert counts() == (0, 0, False)
    client.send(reset_frame(link.id, Http2Code.CANCEL))
    assert counts() == (0, 1, False)
    request.end()
    assert counts() == (0, 1, True)
    again = client.request()
    again.credential_accepted()
    again.became_link()
    client.leave()
    assert counts() == (0, 0, False)


async def test_port_with_a_number_of_connections_of_its_own() -> None:
    """All are counted, and those with an accepted credential are not closed for others."""
    port = Port(strangers=2, guests=None)
    kept = port.connect()
    stream = kept.request()
    assert stream.credential_accepted()
    stream.became_link()
    clients = [port.connect(f"192.0.2.{number}") for number in range(2, 5)]

    assert kept.is_open
    assert [client.is_open for client in clients] == [False, False, True]
    for client in clients[:2]:
        client.leave()
    assert port.strangers.count == 2
    stream.end()
    assert port.strangers.has_idle


async def test_active_stranger_is_not_the_oldest() -> None:
    """A request makes it the newest of its address, as on the HTTP port."""
    port = Port(strangers=2)
    first, second = port.connect(), port.connect()
    first.request().end()
    port.connect()

    assert first.is_open
    assert not second.is_open


async def test_guests_are_full() -> None:
    """While as many others are being served, a credential gives no place; a guest that rests gives way."""
    port = Port(guests=1)
    served = port.connect("192.0.2.2").request()
    assert served.credential_accepted()
    late = port.connect()
    stream = late.request()
    assert not stream.credential_accepted()
    assert (port.strangers.count, port.guests.count) == (1, 1)
    served.end()
    assert stream.credential_accepted()
    assert port.guests.shed == 1


async def test_credential_of_a_stream_that_is_over() -> None:
    """It keeps nothing."""
    port = Port()
    client = port.connect()
    stream = client.request()
    client.send(reset_frame(1, Http2Code.CANCEL))
    assert stream.credential_accepted()
    stream.became_link()

    assert (port.strangers.count, port.guests.count) == (1, 0)


@pytest.mark.parametrize("part", ["frame", "header block"])
async def test_bytes_of_unfinished_requests_are_bounded(part: str) -> None:
    """All connections together: those of the address that holds the most are closed."""
    port = Port(strangers=100, held=200_000)
    if part == "frame":
        piece = frame(FrameKind.DATA, 0, 1, bytes(16_384))[:-1]
    else:
        piece = frame(FrameKind.HEADERS, END_STREAM, 1, _BLOCK)
        piece += frame(FrameKind.CONTINUATION, 0, 1, bytes(8_000)) * 2
    few = port.connect("192.0.2.2")
    few.send(piece)
    clients = [port.connect() for _ in range(50)]
    for client in clients:
        client.send(piece)

    assert few.is_open
    assert 5 < sum(client.is_open for client in clients) <= 12
    assert port.held.total <= 200_000
    for client in (few, *clients):
        client.leave()
    assert port.held.total == 0


async def test_whole_requests_are_not_held() -> None:
    """What was read to its end is no longer counted after the next look."""
    port = Port()
    client = port.connect()
    client.send(header_frames(1, _BLOCK, ended=False))
    piece = frame(FrameKind.DATA, 0, 1, bytes(16_384))
    client.send(piece[:-1])
    assert port.held.total > 16_000
    client.send(piece[-1:])
    port.held.look_at(client.server)

    assert port.held.total == 0


async def test_faults_are_counted_and_few_are_logged() -> None:
    """By reason, with the address and without what the peer has sent. What is not HTTP/2 is only for `debug`."""
    port = Port(strangers=100)
    with capture_logs() as logs:
        for _ in range(20):
            port.connect().send(frame(FrameKind.PING, 0, 1, bytes(8)))
        port.connect(begins=False).send(b"GET /sk_live_secret HTTP/1.1\r\n\r\n")

    assert {reason: count for reason, count in port.reports.counts.items() if count} == {"protocol": 20, "not_http2": 1}
    lines = [entry for entry in logs if entry["log_level"] == "info"]
    assert [entry["reason"] for entry in lines] == ["protocol"] * 5
    expected = {"event": "http2_fault", "log_level": "info", "reason": "protocol", "code": "protocol_error"}
    assert lines[0] == expected | {"address": "192.0.2.1", "streams": 0}
    assert "sk_live_secret" not in str(logs)


async def test_client_that_speaks_http_1() -> None:
    """It gets an answer that it understands, with no byte of HTTP/2 before it."""
    port = Port()
    client = port.connect(begins=False)
    client.send(b"GET /api/games HTTP/1.1\r\nHost: x\r\n\r\n")

    head, _, body = client.transport.take().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 ")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert b'"code":"http_version_not_supported"' in body
    assert client.transport.is_closed


def test_bytes_that_are_no_request_have_no_answer() -> None:
    """Such as TLS on a port without it."""
    assert http1_refusal(b"\x16\x03\x01\x02\x00\x01") == b""
    assert http1_refusal(b"POST / HTTP/1.0\r\n") == http1_refusal(b"get http://x/ HTTP/1.1\r\n") != b""


async def test_connection_that_is_asked_to_leave_before_it_has_begun() -> None:
    """It is closed: a client of HTTP/2 expects our settings first."""
    port = Port()
    silent, begun = port.connect(begins=False), port.connect()
    begun.transport.take()
    await port.connections.leave()

    assert silent.transport.is_closed
    assert silent.transport.take() == b""
    assert begun.transport.take().startswith(goaway_frame(2**31 - 1, 0))


def test_allowances_follow_from_the_streams() -> None:
    """A client may cancel all of its streams at once, and open each with four frames that bring nothing."""
    few, many = Http2Limits.for_streams(10, idle_s=5.0), Http2Limits.for_streams(5000)

    assert (few.streams, few.resets, few.frames, few.idle_s) == (10, 200, 1000, 5.0)
    assert (many.streams, many.resets, many.frames) == (5000, 5000, 20_000)


async def test_all_streams_of_a_connection_cancelled_at_once() -> None:
    """No fault, twice the allowance is one."""
    port = Port(streams=300)
    limits = Http2Limits.for_streams(300)
    connections = Http2Connections(limits, clock=port.clock, on_fault=port.reports.add)
    client = Client(port, GuardedHttp2(port.service, connections, port._guards), _At("192.0.2.1"))
    client.server.connection_made(client.transport)
    client.send(PREFACE + _SETTINGS)
    for begin in (1, 601):
        ids = range(begin, begin + 600, 2)
        client.send(b"".join(frame(FrameKind.HEADERS, END_HEADERS | END_STREAM, each, _BLOCK) for each in ids))
        assert client.is_open
        client.send(b"".join(reset_frame(each, Http2Code.CANCEL) for each in ids))
        assert client.is_open is (begin == 1)
