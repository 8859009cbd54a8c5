"""What is replaced in h2: its parts are there, and a connection is small."""

import tracemalloc
from typing import Any

import pytest
from h2.connection import H2Connection
from hpack import Decoder
from hpack.table import HeaderTable

from relay.errors import StartError
from relay.http2.h2_machine import H2Machine, check_h2
from relay.http2.header_blocks import header_block
from tests.relay.http2.peers import ANSWER, REQUEST, Pair, Recorder


def test_installed_h2_has_the_parts() -> None:
    check_h2()


def test_h2_without_a_part() -> None:
    """The relay does not start, and says which part is missing from which version."""

    class Other(H2Connection):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            del self.remote_settings

    class OtherTable:
        STATIC_TABLE = HeaderTable.STATIC_TABLE

    with pytest.raises(
        StartError, match=r"h2 [\d.]+ with hpack [\d.]+ lacks H2Connection.remote_settings, HeaderTable"
    ):
        check_h2(Other, OtherTable)


def test_table_of_methods_is_not_kept() -> None:
    """h2 makes twelve bound methods for each connection."""
    assert set(vars(H2Connection())) - set(vars(H2Machine(header_bytes=1))) == {"_frame_dispatch_table"}


def test_connection_is_small() -> None:
    """Our own part and h2's of a connection with one stream: 6 KB, of which the transport is no part."""
    pairs = [Pair(Recorder(lambda received: received.stream.send_headers(ANSWER))) for _ in range(3)]
    request = pairs[0].client
    request.send_headers(1, REQUEST, end_stream=True)
    data = request.data_to_send()
    tracemalloc.start()
    try:
        made = []
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            server = type(pairs[0].server)(pairs[0].service, pairs[0].connections)
            server.connection_made(pairs[1].transport)
            server.data_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + data)
            made.append(server)
        size = (tracemalloc.get_traced_memory()[0] - before) / len(made)
    finally:
        tracemalloc.stop()

    assert size < 6000


@pytest.mark.parametrize("value", [b"", b"v", b"v" * 126, b"v" * 127, b"v" * 128, b"v" * 400, b"\xff\x80 a"])
def test_header_blocks_are_read_by_hpack(value: bytes) -> None:
    """Names that are in the static table, and others; values of any length."""
    fields = ((b":status", b"200"), (b":status", b"418"), (b"server", value), (b"x-other", value))

    assert [tuple(field) for field in Decoder().decode(header_block(fields), raw=True)] == [*fields]
