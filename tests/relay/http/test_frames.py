"""Reading a client's frames: judged by the client side of an implementation that is not ours."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode

from relay.http.websocket.frames import FrameError, FrameReader, Message, Opcode

texts = st.text(max_size=300).map(str.encode)


def sent(opcode: TheirOpcode, data: bytes, *, fin: bool = True, deflate: bool = False) -> bytes:
    """Render a frame as a client does, masked."""
    extensions = [PerMessageDeflate(True, True, 15, 15)] if deflate else None
    return bytes(Frame(opcode, data, fin=fin).serialize(mask=True, extensions=extensions))


def reader(*, max_size: int = 4096, deflate: bool = False) -> FrameReader:
    return FrameReader(max_size=max_size, deflate=deflate)


@given(messages=st.lists(texts, max_size=6), cut=st.integers(1, 40), deflate=st.booleans())
def test_messages_arrive_whole_however_they_are_cut(messages: list[bytes], cut: int, deflate: bool) -> None:
    """TCP knows no frames."""
    wire = b"".join(sent(TheirOpcode.TEXT, data, deflate=deflate) for data in messages)
    frames = reader(deflate=deflate)

    found = [message for at in range(0, len(wire), cut) for message in frames.feed(wire[at : at + cut])]

    assert found == [Message(Opcode.TEXT, data) for data in messages]


@given(parts=st.lists(texts, min_size=1, max_size=5))
def test_fragments_are_one_message_and_control_frames_may_come_between(parts: list[bytes]) -> None:
    """RFC 6455 section 5.4."""
    frames, found = reader(), []
    for number, part in enumerate(parts):
        opcode = TheirOpcode.TEXT if number == 0 else TheirOpcode.CONT
        found += frames.feed(sent(opcode, part, fin=number == len(parts) - 1) + sent(TheirOpcode.PING, b"?"))

    texts_found = [message.data for message in found if message.opcode is Opcode.TEXT]
    assert texts_found == [b"".join(parts)]
    assert found.count(Message(Opcode.PING, b"?")) == len(parts)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_messages_or_one_error(data: bytes, deflate: bool) -> None:
    """Nothing else gets out, whatever comes in."""
    try:
        kinds = {type(message) for message in reader(deflate=deflate).feed(data)}
        code = 0
    except FrameError as error:
        kinds, code = set(), error.code

    assert kinds <= {Message}
    assert code in (0, 1002, 1007, 1009)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x81\x01a", 1002),  # not masked
        (sent(TheirOpcode.CONT, b"a"), 1002),
        (sent(TheirOpcode.TEXT, b"a", fin=False) + sent(TheirOpcode.TEXT, b"b"), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # no such opcode
        (b"\xa1\x80\x00\x00\x00\x00", 1002),  # a bit that means nothing
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # compressed, and nobody agreed on that
        (b"\x09\x80\x00\x00\x00\x00", 1002),  # a ping in fragments
        (b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + b"a" * 126, 1002),  # a long ping
        (sent(TheirOpcode.TEXT, b"\xff"), 1007),
        (sent(TheirOpcode.CLOSE, b"\x03\xe8\xff"), 1007),
        (sent(TheirOpcode.CLOSE, b"\x03"), 1002),
        (sent(TheirOpcode.CLOSE, b"\x03\xed"), 1002),  # 1005 is never sent
        (sent(TheirOpcode.TEXT, b"a" * 4097), 1009),
        (b"\x81\xff" + (1 << 62).to_bytes(8), 1009),  # said, not sent
        (sent(TheirOpcode.TEXT, b"a" * 4000, fin=False) + sent(TheirOpcode.CONT, b"a" * 97), 1009),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "wire",  # masks are random, names must not be
)
def test_broken_protocol_is_named_by_its_code(wire: bytes, code: int) -> None:
    """RFC 6455 section 7.4.1."""
    with pytest.raises(FrameError) as caught:
        reader().feed(wire)

    assert caught.value.code == code
    assert caught.value.sentence


def test_message_of_the_largest_size_is_read() -> None:
    """The limit is the last size that is allowed."""
    assert reader(max_size=4096).feed(sent(TheirOpcode.TEXT, b"a" * 4096)) == [Message(Opcode.TEXT, b"a" * 4096)]


def test_small_message_that_unpacks_to_a_large_one_is_too_large() -> None:
    """A compression bomb is not unpacked further than the limit."""
    with pytest.raises(FrameError, match="more than 4096"):
        reader(deflate=True).feed(sent(TheirOpcode.TEXT, b"a" * 10_000_000, deflate=True))


def test_message_that_is_not_deflated_is_refused() -> None:
    """The bit says compressed, the bytes do not."""
    with pytest.raises(zlib.error):
        zlib.decompressobj(wbits=-15).decompress(b"\xff\xff\xff")
    wire = bytearray(sent(TheirOpcode.TEXT, b"\xff\xff\xff"))
    wire[0] |= 0x40

    with pytest.raises(FrameError, match="not deflated"):
        reader(deflate=True).feed(bytes(wire))
