"""The bytes between publisher and server: one command is written per round, and no answer that is read is lost."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from roundlog.client.nats_internals import ConnectionParser
from roundlog.publish.answers import AckFrames, Acks, ErrorAck, answered
from roundlog.publish.hpub import Publish, encode, offset_header

INBOX = b"_INBOX.abc"


def test_publish_is_one_command_with_its_id_and_condition() -> None:
    """Sizes count the headers' bytes and all bytes, as the protocol requires."""
    written = encode(
        [
            Publish(b"rounds.crash", 7, b"crash:1", None, b"", b"{}"),
            Publish(b"rounds.dice", 8, b"dice:2", b"crash:1", offset_header(b"pg:1:A"), b"{...}"),
        ],
        [INBOX + b".7", INBOX + b".8"],
    )
    first = b"NATS/1.0\r\nNats-Msg-Id:crash:1\r\n\r\n"
    second = b"NATS/1.0\r\nNats-Msg-Id:dice:2\r\nNats-Expected-Last-Msg-Id:crash:1\r\nRelay-Position:pg:1:A\r\n\r\n"
    assert written == b"".join(
        [
            b"HPUB rounds.crash _INBOX.abc.7 %d %d\r\n%b{}\r\n" % (len(first), len(first) + 2, first),
            b"HPUB rounds.dice _INBOX.abc.8 %d %d\r\n%b{...}\r\n" % (len(second), len(second) + 5, second),
        ]
    )


class FakeClient:
    """What nats-py's parser needs of a client; messages go where a subscription would take them."""

    def __init__(self) -> None:
        self.acks: list[Acks] = []
        self.error_acks: list[ErrorAck] = []
        self.others: list[bytes] = []
        self.pings = 0

    async def _process_msg(self, _sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if not subject.startswith(INBOX + b"."):
            self.others.append(data)
            return
        parsed = {"Status": "503"} if headers else None
        message = Msg(cast("Any", None), subject.decode(), reply.decode(), data, parsed)
        answered(message, self.acks.append, self.error_acks.append)

    async def _process_ping(self) -> None:
        self.pings += 1


def message(subject: bytes, data: bytes) -> bytes:
    return b"MSG %b 3 %d\r\n%b\r\n" % (subject, len(data), data)


def ack(number: int, extra: bytes = b"") -> bytes:
    return message(b"%b.%d" % (INBOX, number), b'{"stream":"ROUNDS","seq":%d%b}' % (number + 100, extra))


PLAIN = [ack(number) for number in range(6)]
UNUSUAL = [
    ack(20, b',"duplicate": true'),
    ack(21, b',"domain":"hub"'),
    message(INBOX + b".22", b'{"error":{"code":400,"err_code":10070,"description":"wrong"},"stream":"ROUNDS","seq":0}'),
    message(INBOX + b".23", b"not json"),
    message(b"_INBOX.other", b'MSG _INBOX.abc.99 3 30\r\n{"stream":"ROUNDS","seq":5}\r\n'),
    message(b"_INBOX.abcd.1", b""),
    b"HMSG _INBOX.abc.24 3 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    b"PING\r\n",
]


@given(st.permutations(PLAIN + UNUSUAL), st.lists(st.integers(1, 60), max_size=30))
def test_every_answer_is_read_however_the_bytes_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    """TCP cuts anywhere; all frames between the acks go to nats-py, and nothing is lost or read twice."""
    client = FakeClient()
    parser = ConnectionParser(Parser(cast("Any", client)), AckFrames("ROUNDS", INBOX, client.acks.append).read)
    data = b"".join(parts)

    async def feed() -> None:
        at = 0
        for cut in [*cuts, len(data)]:
            await parser.parse(data[at : at + cut])
            at += cut

    asyncio.run(feed())

    assert sorted(number for acks in client.acks for number in acks.numbers) == [0, 1, 2, 3, 4, 5, 20, 21]
    assert sum(acks.duplicates for acks in client.acks) == 1
    assert max(acks.sequence for acks in client.acks) == 121
    assert sorted((error.number, error.code) for error in client.error_acks) == [(22, 10070), (23, 0), (24, 503)]
    assert len(client.others) == 2
    assert client.pings == 1


@pytest.mark.parametrize("data", [b"", b"{}", b'{"seq":0}', b'{"seq":"x"}', b"\xff", b"[1]"])
def test_answer_that_is_no_ack_is_an_error_ack(data: bytes) -> None:
    """Only an answer with a sequence means that the round is stored."""
    error_acks: list[ErrorAck] = []
    answered(Msg(cast("Any", None), "_INBOX.abc.5", "", data), lambda acks: pytest.fail(str(acks)), error_acks.append)
    assert [error.number for error in error_acks] == [5]
