"""WebSocket messages that no proper client sends: each gets the right close code, and affects no other link."""

import json
import zlib
from collections.abc import Callable

import pytest

from tests.clients.live_relay import LiveRelay
from tests.clients.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawWebSocket
from tests.clients.rounds_seen import sequence

pytestmark = pytest.mark.service

PING_MESSAGE = b'{"action":"ping"}'
LIMIT = 4096


def event(ws: RawWebSocket) -> dict[str, object]:
    """Skip rounds and control frames; return the answer to our message."""
    while True:
        opcode, payload = ws.frame()
        if opcode == TEXT and b'"event"' in payload:
            answer: dict[str, object] = json.loads(payload)
            return answer


def fragments(ws: RawWebSocket, *parts: bytes, opcode: int = TEXT) -> None:
    for number, part in enumerate(parts):
        ws.send(opcode if number == 0 else CONTINUATION, part, fin=number == len(parts) - 1)


def again(ws: RawWebSocket, times: int, opcode: int, payload: bytes, *, fin: bool = True) -> None:
    for _ in range(times):
        ws.send(opcode, payload, fin=fin)


def test_fragmented_message_with_a_ping_between_its_parts(relay: LiveRelay) -> None:
    """Three fragments are one message, and control frames may be between them (RFC 6455 section 5.4)."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        ws.send(TEXT, PING_MESSAGE[:5], fin=False)
        ws.send(PING, b"still here?")
        ws.send(CONTINUATION, b"", fin=False)
        ws.send(CONTINUATION, PING_MESSAGE[5:])
        pong = None
        while pong is None:
            opcode, payload = ws.frame()
            pong = payload if opcode == PONG else None

        assert pong == b"still here?"
        assert event(ws) == {"event": "pong"}


def test_message_of_the_largest_size(relay: LiveRelay) -> None:
    """4096 bytes are allowed."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        ws.send(TEXT, PING_MESSAGE.ljust(LIMIT))

        assert event(ws) == {"event": "pong"}


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


TOO_LARGE: dict[str, Callable[[RawWebSocket], None]] = {
    "one_byte_too_many": lambda ws: ws.send(TEXT, PING_MESSAGE.ljust(LIMIT + 1)),
    "in_fragments": lambda ws: fragments(ws, *[b" " * 1000] * 5),
    "a_frame_of_a_terabyte_announced": lambda ws: ws.socket.sendall(b"\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00mask"),
    "a_bomb_of_16_mb_in_16_kb": lambda ws: ws.send(TEXT, deflated(b" " * (16 << 20))[:4000], rsv=4),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_message_that_is_too_large(relay: LiveRelay, what: str) -> None:
    """Above 4096 bytes a client is closed with 1009 as soon as the size is known, in frames of any kind."""
    with RawWebSocket(relay, "/ws/crash", compress="bomb" in what) as ws:
        TOO_LARGE[what](ws)

        assert ws.closed().code == 1009


NOT_UTF8: dict[str, Callable[[RawWebSocket], None]] = {
    "a_stray_byte": lambda ws: ws.send(TEXT, b'{"action":"\xff"}'),
    "a_surrogate": lambda ws: ws.send(TEXT, b'{"action":"\xed\xa0\x80"}'),
    "in_a_later_fragment": lambda ws: fragments(ws, b'{"action":', b'"\xc3', b'("}'),
    "cut_within_a_character": lambda ws: ws.send(TEXT, b'{"action":"\xe2\x82'),
}


@pytest.mark.parametrize("what", NOT_UTF8)
def test_text_that_is_not_utf8(relay: LiveRelay, what: str) -> None:
    """It is closed with 1007."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        NOT_UTF8[what](ws)

        assert ws.closed().code == 1007


BAD: dict[str, Callable[[RawWebSocket], None]] = {
    "not_json": lambda ws: ws.send(TEXT, b"hello"),
    "empty": lambda ws: ws.send(TEXT, b""),
    "unknown_action": lambda ws: ws.send(TEXT, b'{"action":"shutdown"}'),
    "unknown_field": lambda ws: ws.send(TEXT, b'{"action":"ping","game":"crash"}'),
    "unknown_game": lambda ws: ws.send(TEXT, b'{"action":"subscribe","games":["no-such-game"]}'),
    "game_with_a_wildcard": lambda ws: ws.send(TEXT, b'{"action":"subscribe","games":["*"]}'),
    "character_across_fragments": lambda ws: fragments(ws, b'{"action":"subscribe","games":["\xc3', b'\xa9"]}'),
    "deeply_nested": lambda ws: ws.send(TEXT, b"[" * 4000),
    "binary": lambda ws: ws.send(BINARY, PING_MESSAGE),
    "flood": lambda ws: again(ws, 150, TEXT, PING_MESSAGE),
    "flood_of_pings": lambda ws: again(ws, 150, PING, b""),
}


@pytest.mark.parametrize("what", BAD)
def test_invalid_message(relay: LiveRelay, what: str) -> None:
    """It is closed with 1008 and a reason in JSON."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        BAD[what](ws)
        closed = ws.closed()

    assert closed.code == 1008
    assert len(closed.reason.encode()) <= 123
    reason = json.loads(closed.reason)
    assert reason["reason"] == "bad_message"
    assert reason["error"]


BROKEN: dict[str, Callable[[RawWebSocket], None]] = {
    "reserved_opcode": lambda ws: ws.send(0x3, PING_MESSAGE),
    "reserved_bit": lambda ws: ws.send(TEXT, PING_MESSAGE, rsv=1),
    "compressed_without_agreement": lambda ws: ws.send(TEXT, deflated(PING_MESSAGE), rsv=4),
    "fragmented_ping": lambda ws: ws.send(PING, b"", fin=False),
    "large_ping": lambda ws: ws.send(PING, b"x" * 126),
    "continuation_of_nothing": lambda ws: ws.send(CONTINUATION, PING_MESSAGE),
    "text_within_a_fragmented_message": lambda ws: again(ws, 2, TEXT, b"{", fin=False),
    "close_code_that_is_none": lambda ws: ws.send(CLOSE, (999).to_bytes(2, "big")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_frame_that_breaks_the_protocol(relay: LiveRelay, what: str) -> None:
    """It is closed with 1002 (RFC 6455 section 7.4.1)."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        BROKEN[what](ws)

        assert ws.closed().code == 1002


def test_client_that_closes_is_answered(relay: LiveRelay) -> None:
    """A close frame is answered with its own code."""
    with RawWebSocket(relay, "/ws/crash") as ws:
        ws.send(CLOSE, (1000).to_bytes(2, "big"))

        assert ws.closed().code == 1000


def test_other_links_are_not_affected(relay: LiveRelay) -> None:
    """A link beside broken ones gets its rounds, each once."""
    with RawWebSocket(relay, "/ws") as good:
        for breaking in (*TOO_LARGE.values(), *NOT_UTF8.values(), *BAD.values(), *BROKEN.values()):
            with RawWebSocket(relay, "/ws/crash") as bad:
                breaking(bad)
                bad.closed()
        frames = [good.frame() for _ in range(20)]

    # Not `checked`: they waited until all bad links were closed, and are no fresh rounds.
    sequences = [sequence(json.loads(payload)) for opcode, payload in frames if opcode == TEXT]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
