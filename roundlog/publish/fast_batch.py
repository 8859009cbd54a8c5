"""A batch of publishes that nats-server stores in order, and from its first failure on not at all.

Owns the reply subjects of a "fast-ingest batch" of nats-server 2.14 and later, and what the answers say of each of its
publishes. A later publish of a batch is never stored without an earlier one, whatever is dropped or elected. No I/O.
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md#fast-ingest-batch-publishing
Why: docs/adr/0023-fast-ingest-batches.md
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from nats.aio.msg import Msg

from roundlog.client.api import ApiError
from roundlog.client.codes import ErrorCode
from roundlog.publish.answers import Acks, ErrorAck, status_error

_FLOW: Final = 65_535
"""Reports in the middle of a batch are of no use here; the server sends one every 500 publishes at most."""
_START, _APPEND, _COMMIT = 0, 1, 2
UNCLEAR: Final = -1
"""The code of an error ack: the round may be stored. Publish it alone, with the same id, to learn whether it is."""


class _Answer(msgspec.Struct):
    """What the server sends to the reply subject of a publish: the final ack, an error, or a report in between."""

    type: str = ""  # empty: final ack or error; "ack" and "gap": reports; "err": an error of the publish `seq`
    seq: int = 0  # of the final ack: the sequence of the batch's newest message in the log; 0: it stored none
    count: int = 0  # of the final ack: publishes, from the first on, that are stored or were stored before
    error: ApiError | None = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


class FastBatch:
    """The batch that is in flight. A connection has one at a time."""

    def __init__(self, inbox: bytes, name: int, numbers: Sequence[int], *, head: int) -> None:
        """Prepare a batch.

        Args:
            inbox: The prefix of its reply subjects, of this connection alone.
            name: Distinguishes it from the earlier batches of this connection.
            numbers: Of its publishes in their order, at least two.
            head: The newest known sequence of the log, for the check of the final ack.
        """
        self._numbers = numbers
        self._head = head
        self._has_ended = False
        self._prefix = b"%b.%d" % (inbox, name)
        self._subjects = f"{self._prefix.decode()}."

    def replies(self) -> list[bytes]:
        """Return the reply subject of each publish, which has its place in the batch and what the server is to do."""
        count = len(self._numbers)
        operations = [_START, *[_APPEND] * (count - 2), _COMMIT]
        return [
            b"%b.%d.fail.%d.%d.$FI" % (self._prefix, _FLOW, place, operation)
            for place, operation in enumerate(operations, 1)
        ]

    def has_reply(self, subject: str) -> bool:
        """Whether an answer that came to `subject` is of this batch."""
        return subject.startswith(self._subjects)

    def answered(self, message: Msg, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]) -> None:
        """Read one answer. After the final ack each publish of the batch has had an ack or an error ack."""
        if self._has_ended:
            return  # the server refuses what was on its way when it ended the batch
        place = int(message.subject.split(".")[-3])
        if (error_ack := status_error(message, self._numbers[place - 1])) is not None:
            on_error_ack(error_ack)
            return
        try:
            answer = _decode_answer(message.data)
        except msgspec.MsgspecError as error:
            on_error_ack(ErrorAck(self._numbers[place - 1], 0, f"the answer is not an ack: {error}"))
            return
        if answer.error is not None:
            code, reason = answer.error.err_code or answer.error.code, answer.error.description
            if code == ErrorCode.UNKNOWN_BATCH:  # its first publish was dropped, and gets no answer
                self._end(0, UNCLEAR, reason, on_error_ack)
            else:
                on_error_ack(ErrorAck(self._numbers[(answer.seq if answer.type else place) - 1], code, reason))
        elif not answer.type:
            self._finish(answer, on_acks, on_error_ack)

    def _finish(
        self, answer: _Answer, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]
    ) -> None:
        """Read the final ack, and believe it only where the log has grown by as many as it says are stored.

        A publish counts as stored when its id is known, also when the message of this id was lost in an election.
        """
        if answer.count and answer.seq - self._head == answer.count:
            on_acks(Acks(list(self._numbers[: answer.count]), 0, answer.seq))
            self._end(answer.count, 0, "the server ended the batch before this round", on_error_ack)
        else:
            self._end(0, UNCLEAR, "the batch has known ids, or another publisher stored rounds meanwhile", on_error_ack)

    def _end(self, stored: int, code: int, reason: str, on_error_ack: Callable[[ErrorAck], None]) -> None:
        self._has_ended = True
        for number in self._numbers[stored:]:
            on_error_ack(ErrorAck(number, code, reason))
