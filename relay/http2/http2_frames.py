"""HTTP/2 frames as bytes (RFC 9113): pure functions that write them, and the numbers that name them.

Does not read frames, and knows no state.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (section 3.4)."""
FRAME_BYTES: Final = 16_384
"""The longest payload of a frame that every peer takes (section 4.2). Longer ones would save 9 bytes in 16,384."""
DATA_BYTES: Final = 1024
"""The longest payload of DATA that we send. A client handles a frame when it has all of it: on a slow network, rounds
in shorter ones come sooner, and more of them before a cut. Costs 9 bytes in 1,024."""
HEAD_BYTES: Final = 9
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
HALF_WINDOW: Final = DEFAULT_WINDOW // 2
"""Received bytes after which a peer is allowed as many more: most requests need no update."""

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8

_HEAD: Final = struct.Struct(">HBBBL")
SETTING: Final = struct.Struct(">HL")
"""A setting and its value."""
_NUMBER: Final = struct.Struct(">L")


class FrameKind(IntEnum):
    """The types of frames (section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class SettingId(IntEnum):
    """The settings that we send or read (section 6.5.2)."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Http2Code(IntEnum):
    """Why a stream or a connection ended (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Render one frame. `payload` has at most `FRAME_BYTES` bytes."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def data_frames(stream_id: int, payload: bytes) -> bytes:
    """Render bytes of a body as DATA frames; empty bytes are none."""
    if 0 < len(payload) <= DATA_BYTES:
        return frame(FrameKind.DATA, 0, stream_id, payload)
    pieces = (payload[at : at + DATA_BYTES] for at in range(0, len(payload), DATA_BYTES))
    return b"".join(frame(FrameKind.DATA, 0, stream_id, piece) for piece in pieces)


def header_frames(stream_id: int, block: bytes, *, ended: bool) -> bytes:
    """Render a header block as HEADERS, and CONTINUATION where it is long."""
    flags = END_STREAM if ended else 0
    if len(block) <= FRAME_BYTES:
        return frame(FrameKind.HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
    frames = [frame(FrameKind.HEADERS, flags, stream_id, pieces[0])]
    frames += [frame(FrameKind.CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    return b"".join((*frames, frame(FrameKind.CONTINUATION, END_HEADERS, stream_id, pieces[-1])))


def settings_frame(values: Mapping[SettingId, int], *, ack: bool = False) -> bytes:
    """Render our settings, or the answer to those of the peer, which has no values."""
    payload = b"".join(SETTING.pack(name, value) for name, value in values.items())
    return frame(FrameKind.SETTINGS, ACK if ack else 0, 0, payload)


def ping_frame(data: bytes, *, ack: bool) -> bytes:
    """Render a ping, or the answer to one, of 8 bytes."""
    return frame(FrameKind.PING, ACK if ack else 0, 0, data)


def reset_frame(stream_id: int, code: int) -> bytes:
    """Render the end of one stream."""
    return frame(FrameKind.RST_STREAM, 0, stream_id, _NUMBER.pack(code))


def goaway_frame(last_stream_id: int, code: int, text: bytes = b"") -> bytes:
    """Render the end of a connection: streams up to `last_stream_id` were handled, or still are."""
    return frame(FrameKind.GOAWAY, 0, 0, _NUMBER.pack(last_stream_id) + _NUMBER.pack(code) + text)


def number(data: bytes, at: int) -> int:
    """Read an unsigned number of 31 bits; the first bit is reserved."""
    return int.from_bytes(data[at : at + 4], "big") & 0x7FFF_FFFF
