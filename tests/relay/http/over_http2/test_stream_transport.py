"""The transport of one request over HTTP/2: what its client gets of an answer, and how it ends."""

import asyncio
from typing import TYPE_CHECKING, cast

from relay.http.over_http2.http1_answer import Http1Answer
from relay.http.over_http2.stream_transport import StreamTransport
from relay.http2 import Http2Code
from tests.relay.http2.peers import Pair, Recorder

if TYPE_CHECKING:
    from relay.links.intake import Intake


class Handler(asyncio.Protocol):
    """Learns that its connection is lost."""

    def __init__(self) -> None:
        self.lost: list[Exception | None] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def test_connection_that_is_closed_without_the_end_of_its_answer() -> None:
    """As over HTTP/1.1, every byte before the end arrives; then the client learns that it was not the end."""
    pair = Pair(Recorder(), window=1000)
    stream_id = pair.request()
    handler = Handler()
    transport = StreamTransport(pair.service.requests[0].stream, Http1Answer(has_body=True))
    transport.begin(cast("Intake", handler))

    transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5dc\r\n" + bytes(1500) + b"\r\n")
    transport.close()
    pair.settle()
    await asyncio.sleep(0)
    assert transport.is_closing()
    assert (pair.resets(), handler.lost) == ([], [])
    pair.client.increment_flow_control_window(1000, stream_id)
    pair.settle()
    await asyncio.sleep(0)

    assert pair.body(stream_id) == bytes(1500)
    assert pair.resets() == [(stream_id, Http2Code.INTERNAL_ERROR)]
    assert handler.lost == [None]
