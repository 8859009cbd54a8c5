"""The answers to publishes: runs of acks read out of the bytes of a connection, and all other answers one by one.

Owns the form of an ack. Knows nothing of what is sent again. Why: docs/adr/0003-own-publish-pipeline.md
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from roundlog.client.codes import NatsStatus
from roundlog.publish.store import StoreReply

_decode_reply: Final = msgspec.json.Decoder(StoreReply).decode


class Acks(NamedTuple):
    """Acks that came together. All these publishes are stored, or were and are remembered by their ids."""

    numbers: list[int]
    duplicates: int  # so many of them were stored before
    sequence: int  # the newest sequence of the log among them
    frames: Sequence[tuple[bytes, bytes, bytes]] = ()  # of several acks: number, sequence, anything for a duplicate

    def each(self) -> Iterable[tuple[int, int]]:
        """Iterate over the numbers and their sequences."""
        if not self.frames:  # one ack, or that of a batch, whose rounds have consecutive sequences
            return zip(self.numbers, range(self.sequence + 1 - len(self.numbers), self.sequence + 1), strict=True)
        return [(int(number), int(sequence)) for number, sequence, _ in self.frames]

    def parted(self) -> tuple["Acks", list[tuple[int, int]]]:
        """Return the acks of what was stored now, and the numbers and sequences of the duplicates."""
        if not self.duplicates:
            return self, []
        if not self.frames:  # a single one
            return Acks([], 0, self.sequence), [(self.numbers[0], self.sequence)]
        stored = [frame for frame in self.frames if not frame[2]]
        duplicates = [(int(number), int(sequence)) for number, sequence, duplicate in self.frames if duplicate]
        return Acks([int(number) for number, _, _ in stored], 0, self.sequence, stored), duplicates


class ErrorAck(NamedTuple):
    """An error ack: this round is not stored."""

    number: int
    code: int  # an `ErrorCode`, or a `NatsStatus` when the answer has no such code; 0: the answer is not an ack
    reason: str


def answered(message: Msg, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]) -> None:
    """Read one answer that `AckFrames` did not take: an error ack, or an ack of an unusual form."""
    number = int(message.subject.rpartition(".")[2])
    if (error_ack := status_error(message, number)) is not None:
        on_error_ack(error_ack)
        return
    try:
        reply = _decode_reply(message.data)
    except msgspec.MsgspecError as error:
        on_error_ack(ErrorAck(number, 0, f"the answer is not an ack: {error}"))
        return
    if fault := reply.error:
        on_error_ack(ErrorAck(number, fault.err_code or fault.code, fault.description))
    elif reply.seq:
        on_acks(Acks([number], int(reply.duplicate), reply.seq))
    else:
        on_error_ack(ErrorAck(number, 0, "the ack has no sequence"))


def status_error(message: Msg, number: int) -> ErrorAck | None:
    """Return the error ack that a message without data is: its header has only a status. None: it is an answer."""
    status = (message.headers or {}).get("Status")
    if status is None:
        return None
    # 503: nothing listens; 429: more than the server buffers for the stream
    unavailable = int(status) == NatsStatus.UNAVAILABLE
    reason = "no stream stores rounds now" if unavailable else (message.headers or {}).get("Description", "")
    return ErrorAck(number, int(status), reason)


class AckFrames:
    """Reads runs of plain acks to ``<inbox>.<number>`` from a connection's bytes."""

    def __init__(self, stream: str, inbox: bytes, on_acks: Callable[[Acks], None]) -> None:
        self._on_acks = on_acks
        ack = rb'MSG %b\.(\d+) \d+ \d+\r\n\{"stream":"%b", ?"seq":(\d+)(, ?"duplicate": ?true)?\}\r\n' % (
            re.escape(inbox),
            re.escape(stream.encode()),
        )
        self._ack = re.compile(ack)
        self._run = re.compile(b"(?:%b)*" % ack.replace(b"(\\d+)", b"\\d+").replace(b"(, ", b"(?:, "))

    def read(self, data: bytes, at: int) -> int:
        """Take whole acks from offset `at` on: a `roundlog.client.nats_internals.ReadFrames`."""
        run = self._run.match(data, at)
        end = at if run is None else run.end()
        if end > at:
            found = self._ack.findall(data, at, end)
            duplicates = sum(1 for _, _, duplicate in found if duplicate)
            self._on_acks(
                Acks(
                    [int(number) for number, _, _ in found],
                    duplicates,
                    int(found[-1][1]),
                    found if len(found) > 1 else (),
                )
            )
        return end
