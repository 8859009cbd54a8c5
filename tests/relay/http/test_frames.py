"""Reading a client's frames: whole messages, size limits, and the close code of each error."""

import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from relay.http.websocket.frames import FrameError, FrameReader, Message, TooManyFrames

texts = st.text(max_size=300).map(str.encode)


def sent(opcode: Opcode, data: bytes, *, fin: bool = True, deflate: bool = False) -> bytes:
    """Render a frame as a client does, masked."""
    extensions = [PerMessageDeflate(True, True, 15, 15)] if deflate else None
    return bytes(Frame(opcode, data, fin=fin).serialize(mask=True, extensions=extensions))


def reader(*, max_size: int = 4096, deflate: bool = False) -> FrameReader:
    return FrameReader(max_size=max_size, deflate=deflate)


@given(messages=st.lists(texts, max_size=6), cut=st.integers(1, 40), deflate=st.booleans())
def test_messages_are_whole_in_pieces_of_any_size(messages: list[bytes], cut: int, deflate: bool) -> None:
    """TCP does not preserve frame boundaries."""
    wire = b"".join(sent(Opcode.TEXT, data, deflate=deflate) for data in messages)
    frames = reader(deflate=deflate)

    found = [message for at in range(0, len(wire), cut) for message in frames.feed(wire[at : at + cut])]

    assert found == [Message(Opcode.TEXT, data) for data in messages]


@given(parts=st.lists(texts, min_size=1, max_size=5))
def test_fragments_are_one_message_and_control_frames_may_come_between(parts: list[bytes]) -> None:
    """RFC 6455 section 5.4."""
    frames, found = reader(), list[Message]()
    for number, part in enumerate(parts):
        opcode = Opcode.TEXT if number == 0 else Opcode.CONT
        found += frames.feed(sent(opcode, part, fin=number == len(parts) - 1) + sent(Opcode.PING, b"?"))

    texts_found = [message.data for message in found if message.opcode is Opcode.TEXT]
    assert texts_found == [b"".join(parts)]
    assert found.count(Message(Opcode.PING, b"?")) == len(parts)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_messages_or_one_error(data: bytes, deflate: bool) -> None:
    """Any input yields messages, or raises `FrameError`."""
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
        (sent(Opcode.CONT, b"a"), 1002),
        (sent(Opcode.TEXT, b"a", fin=False) + sent(Opcode.TEXT, b"b"), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # unknown opcode
        (b"\xa1\x80\x00\x00\x00\x00", 1002),  # reserved bit
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # compressed without negotiation
        (b"\x09\x80\x00\x00\x00\x00", 1002),  # fragmented ping
        (b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + b"a" * 126, 1002),  # ping over 125 bytes
        (sent(Opcode.TEXT, b"\xff"), 1007),
        (sent(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
        (sent(Opcode.CLOSE, b"\x03"), 1002),
        (sent(Opcode.CLOSE, b"\x03\xed"), 1002),  # 1005 must not be sent
        (sent(Opcode.TEXT, b"a" * 4097), 1009),
        (b"\x81\xff" + (1 << 62).to_bytes(8), 1009),  # said, not sent
        (sent(Opcode.TEXT, b"a" * 4000, fin=False) + sent(Opcode.CONT, b"a" * 97), 1009),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "wire",  # fixed ids: masks are random
)
def test_protocol_violation_has_its_close_code(wire: bytes, code: int) -> None:
    """RFC 6455 section 7.4.1."""
    with pytest.raises(FrameError) as caught:
        list(reader().feed(wire))

    assert caught.value.code == code
    assert caught.value.sentence


def test_message_of_the_largest_size_is_read() -> None:
    """The limit is the largest allowed size."""
    assert list(reader(max_size=4096).feed(sent(Opcode.TEXT, b"a" * 4096))) == [Message(Opcode.TEXT, b"a" * 4096)]


def test_control_frame_is_read_within_a_message_that_is_full() -> None:
    """The limit counts the message only, not the control frames between its fragments."""
    wire = sent(Opcode.TEXT, b"a" * 4096, fin=False) + sent(Opcode.PING, b"?" * 125) + sent(Opcode.CONT, b"")

    assert list(reader().feed(wire)) == [Message(Opcode.PING, b"?" * 125), Message(Opcode.TEXT, b"a" * 4096)]


@pytest.mark.parametrize("data", [b"a" * 4096, b"0123456789abcdef" * 256, b"".join(b"%04x" % n for n in range(1024))])
@pytest.mark.parametrize("cuts", [[], [100], [50, 50, 700]])
def test_compressed_message_of_the_largest_size_is_read_and_one_byte_more_is_too_large(
    data: bytes, cuts: list[int]
) -> None:
    """The limit is that of the inflated message, in one frame or in fragments."""
    assert list(reader(deflate=True).feed(deflated(data, cuts))) == [Message(Opcode.TEXT, data)]
    with pytest.raises(FrameError) as caught:
        list(reader(deflate=True).feed(deflated(data + b"a", cuts)))

    assert caught.value.code == 1009


def deflated(data: bytes, cuts: list[int]) -> bytes:
    """Compress a message and send it in fragments: those of `cuts` bytes each, and the rest."""
    packer = zlib.compressobj(wbits=-15)
    rest = (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    parts = []
    for cut in cuts:
        parts.append(rest[:cut])
        rest = rest[cut:]
    parts.append(rest)
    wire = bytearray()
    for number, part in enumerate(parts):
        opcode = Opcode.TEXT if number == 0 else Opcode.CONT
        frame = bytearray(sent(opcode, part, fin=number == len(parts) - 1))
        frame[0] |= 0x40 if number == 0 else 0
        wire += frame
    return bytes(wire)


def test_bit_of_compression_is_refused_on_a_later_fragment() -> None:
    """RFC 7692 section 6.1: only the first fragment carries it."""
    wire = bytearray(deflated(b"a" * 100, [3]))
    wire[2 + 4 + 3] |= 0x40

    with pytest.raises(FrameError) as caught:
        list(reader(deflate=True).feed(bytes(wire)))

    assert caught.value.code == 1002


def test_close_frame_after_a_fault_is_read() -> None:
    """A client answers our close frame with its own; bytes from before the error must not shift it."""
    frames = reader(deflate=True)
    for fault in (b"\x81\x01a", sent(Opcode.TEXT, b"a", fin=False) + sent(Opcode.TEXT, b"b"), b"\x83\x80mask"):
        with pytest.raises(FrameError):
            list(frames.feed(fault))

        close = Message(Opcode.CLOSE, b"\x03\xea")
        assert list(frames.feed(sent(Opcode.CLOSE, close.data))) == [close]


def test_frames_are_parsed_only_when_they_are_asked_for() -> None:
    """A caller that refuses a client stops iterating, and the remaining bytes are not parsed."""
    messages = reader().feed(sent(Opcode.PING, b"") + b"\x81\x01a")

    assert next(messages) == Message(Opcode.PING, b"")
    with pytest.raises(FrameError):
        next(messages)


def test_nothing_is_kept_between_messages() -> None:
    """Every client answers pings, so what a reader keeps after a frame is memory of every idle link."""
    frames, fresh = reader(deflate=True), reader(deflate=True)
    list(frames.feed(sent(Opcode.TEXT, b"a" * 4000, deflate=True) + sent(Opcode.PONG, b"")))

    assert {name: getattr(frames, name) for name in frames.__slots__} == {
        name: getattr(fresh, name) for name in fresh.__slots__
    }


def test_small_message_that_inflates_to_a_large_one_is_too_large() -> None:
    """A compression bomb is not inflated above the limit."""
    with pytest.raises(FrameError, match="more than 4096"):
        list(reader(deflate=True).feed(sent(Opcode.TEXT, b"a" * 10_000_000, deflate=True)))


def test_message_that_is_not_deflated_is_refused() -> None:
    """Its compression bit is set, but its bytes are not deflated."""
    with pytest.raises(zlib.error):
        zlib.decompressobj(wbits=-15).decompress(b"\xff\xff\xff")
    wire = bytearray(sent(Opcode.TEXT, b"\xff\xff\xff"))
    wire[0] |= 0x40

    with pytest.raises(FrameError, match="not deflated") as caught:
        list(reader(deflate=True).feed(bytes(wire)))

    assert caught.value.code == 1007


@pytest.mark.service
def test_websockets_is_not_loaded_at_start() -> None:
    """It is loaded when the relay is ready: the start imports only what it needs."""
    program = "import sys, relay.serve; print([name for name in sys.modules if name.startswith('websockets')])"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"[]"


@pytest.mark.parametrize(
    "frame",
    [
        sent(Opcode.PING, b""),
        sent(Opcode.PONG, b""),
        sent(Opcode.TEXT, b""),
        sent(Opcode.CONT, b"", fin=False),
        sent(Opcode.CONT, b"x", fin=False),
    ],
    ids=["ping", "pong", "message", "empty_fragment", "fragment"],
)
@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_each_frame_counts(frame: bytes, cut: int) -> None:
    """In pieces of any size: as many as are allowed, and none of the rest is parsed."""
    frames = reader()
    opening = sent(Opcode.TEXT, b"", fin=False) if frame[0] & 0x0F == Opcode.CONT else b""
    assert list(frames.feed(opening)) == []
    frames.frames = 10
    wire = frame * 1000

    fed = 0

    def feed_all() -> None:
        nonlocal fed
        for fed in range(0, len(wire), cut):
            list(frames.feed(wire[fed : fed + cut]))

    with pytest.raises(TooManyFrames):
        feed_all()
    assert frames.frames == -1
    assert fed < 11 * len(frame)
    assert frames.unread >= len(wire) - 11 * len(frame) if cut > len(wire) else frames.unread < cut


def test_frames_that_the_caller_did_not_ask_for_are_unread() -> None:
    """They are parsed when it asks again."""
    frames, ping = reader(), sent(Opcode.PING, b"")

    assert next(frames.feed(ping * 3)) == Message(Opcode.PING, b"")
    assert frames.unread == 2 * len(ping)
    assert list(frames.feed(b"")) == [Message(Opcode.PING, b"")] * 2
    assert frames.unread == 0
