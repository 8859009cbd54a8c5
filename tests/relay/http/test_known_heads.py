"""Heads of requests that come again are not read again; those of streams are, and memory is bounded."""

import pytest

from relay.http.connections.plain_head import KnownHeads, PlainHead


def head_of(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def test_a_head_that_comes_again_is_read_once() -> None:
    """The same bytes get the same value, and others their own."""
    heads = KnownHeads()
    crash, dice = head_of("GET /api/latest/crash"), head_of("GET /api/latest/dice")

    first = heads.read(crash)

    assert first == PlainHead.read(crash)
    assert heads.read(bytes(bytearray(crash))) is first
    assert heads.read(dice) == PlainHead.read(dice)


@pytest.mark.parametrize(
    "data",
    [
        head_of("GET /ws/crash", "Upgrade: websocket", "Connection: Upgrade"),
        head_of("GET /sse/crash?token=a.b.c"),
        head_of("GET /api/games", f"Cookie: {'a' * 1024}"),
        head_of("GET /api/games", "TE: trailers"),
        head_of("GET /api/games")[:-2],
    ],
    ids=["websocket", "event stream", "long", "not plain", "not whole"],
)
def test_other_heads_are_not_remembered(data: bytes) -> None:
    """Each stream has a token of its own, and what is not plain is not ours to read."""
    heads = KnownHeads()

    assert heads.read(data) == PlainHead.read(data)
    assert not len(heads)


def test_the_oldest_head_is_forgotten_for_a_new_one() -> None:
    """A client that sends other bytes each time takes no more memory than that."""
    heads = KnownHeads()
    for number in range(3000):
        heads.read(head_of(f"GET /api/latest/{number}"))

    assert len(heads) == 1024
    assert heads.read(head_of("GET /api/latest/2999")) is heads.read(head_of("GET /api/latest/2999"))
