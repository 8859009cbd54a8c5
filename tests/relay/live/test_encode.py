"""The wire forms follow their RFCs: decoders of other authors read them."""

import json
import zlib
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from relay.live.encode import SseBlock, WebSocketDeflate, WebSocketText, chunk, frame
from rounds import Round

payloads = st.binary(max_size=300) | st.sampled_from([b"x" * n for n in (125, 126, 65535, 65536, 100_000)])


class Payload(NamedTuple):
    """Stands for an item: any bytes as its JSON."""

    json: bytes
    cursor: str = "k-1"

    @property
    def round(self) -> Round:
        raise AssertionError("these forms are made from the JSON")


def read_frame(data: bytes, *, extensions: list[PerMessageDeflate] | None = None) -> Frame:
    """Parse one frame with python-websockets' own parser."""
    reader = StreamReader()
    reader.feed_data(data)
    parsing = Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=extensions)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    result = done.value.value
    assert isinstance(result, Frame)
    return result


@given(payloads)
def test_frame_is_read_back_whole_by_another_implementation(payload: bytes) -> None:
    """Every length form of RFC 6455 section 5.2."""
    parsed = read_frame(frame(payload))

    assert (parsed.opcode, parsed.fin, bytes(parsed.data)) == (Opcode.TEXT, True, payload)


@given(st.lists(st.text(min_size=1, max_size=400).map(str.encode), min_size=1, max_size=5))
def test_compressed_frames_are_read_by_an_inflater_that_keeps_its_window(payloads: list[bytes]) -> None:
    """Shared frames depend on no earlier one, so context takeover on the client's side does no harm."""
    form = WebSocketDeflate(15)
    frames = [form.render(Payload(payload)) for payload in payloads]
    inflater = PerMessageDeflate(False, False, 15, 15)

    assert [bytes(read_frame(data, extensions=[inflater]).data) for data in frames] == payloads


@pytest.mark.parametrize("window_bits", [9, 10, 12, 15])
def test_compressed_frame_joined_late_is_readable(window_bits: int) -> None:
    """A link that joins after a thousand frames can read its first one."""
    form = WebSocketDeflate(window_bits)
    for number in range(1000):
        form.render(Payload(b'{"round_id":%d,"game_slug":"crash"}' % number))
    last = form.render(Payload(b'{"round_id":1000,"game_slug":"crash"}'))

    inflate = zlib.decompressobj(wbits=-window_bits)
    assert inflate.decompress(last[2:] + b"\x00\x00\xff\xff") == b'{"round_id":1000,"game_slug":"crash"}'


def test_sse_block_has_id_and_one_data_line() -> None:
    """The default event type, so that ``onmessage`` sees it, and a blank line at the end."""
    round_json = json.dumps({"text": "a\nb\u2028c"}).encode()

    assert (
        SseBlock(chunked=False).render(Payload(round_json, "k3f9a2-7"))
        == b"id: k3f9a2-7\ndata: " + round_json + b"\n\n"
    )


def test_sse_block_as_chunk_has_its_size_in_hex() -> None:
    """RFC 9112 section 7.1."""
    plain = SseBlock(chunked=False).render(Payload(b"{}"))

    assert SseBlock(chunked=True).render(Payload(b"{}")) == chunk(plain)
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_equal_forms_are_one_key() -> None:
    """Links with the same form share their channel, and so their bytes."""
    assert WebSocketText() == WebSocketText()
    assert len({WebSocketText(), WebSocketDeflate(15), WebSocketDeflate(15), WebSocketDeflate(10)}) == 3
    assert len({SseBlock(True), SseBlock(True), SseBlock(False)}) == 2
