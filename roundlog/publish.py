"""Publish to streams: rounds by the thousand, many in one write and many acks out of one read, and single messages.

Owns the bytes of publishes and of acks. Where nats-py lacks what the fast path needs (see `nats_internals`), publishes
and acks go through its public API. Knows nothing of what is sent again. Why: docs/adr/0003-own-publish-pipeline.md
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from roundlog.client.api import ApiError, decoded
from roundlog.client.codes import NatsStatus
from roundlog.client.connection import Connection
from roundlog.client.faults import translated
from roundlog.client.nats_internals import abort, attach, has_writer, writer_of
from roundlog.log_errors import LogUnavailable
from roundlog.tail import OFFSET_HEADER

HEADER_ROOM: Final = 512
"""No round's headers are longer: two ids of at most 64 + 1 + 19 characters, an offset of 64, and their names."""


def offset_header(offset: bytes) -> bytes:
    """Write the header line with a round's offset in its source."""
    return b"%b:%b\r\n" % (OFFSET_HEADER.encode(), offset)


class Publish(NamedTuple):
    """One publish: its subject, the number of its ack, and its condition."""

    subject: bytes
    number: int
    msg_id: bytes
    expected: bytes | None  # the id that the log's newest message must have; None: any
    offset_header: bytes  # the header line with the round's offset in its source; empty: none
    data: bytes


class ErrorAck(NamedTuple):
    """An error ack: this round is not stored."""

    number: int
    code: int  # an `ErrorCode`, or a `NatsStatus` when the answer has no such code; 0: the answer is no ack
    reason: str


class StoreReply(msgspec.Struct):
    """The stream's answer to a message: its sequence, or an error."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


_decode_reply: Final = msgspec.json.Decoder(StoreReply).decode


async def store(
    connection: Connection, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
) -> StoreReply:
    """Store one message in the stream that has this subject, and wait for its ack.

    Raises:
        NoResponders: No stream has the subject, or it has no leader at the moment. Nothing was stored.
        LogUnavailable: No answer in time, or the connection is lost. The message may have been stored.
    """
    return decoded(await connection.request(subject, data, headers=headers), StoreReply)


def encode(publishes: Iterable[Publish], inbox: bytes) -> bytes:
    """Render publishes as HPUB commands, one after another, whose acks come to ``<inbox>.<number>``.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    parts = []
    for subject, number, msg_id, expected, offset, data in publishes:
        if expected is None:
            head = b"NATS/1.0\r\nNats-Msg-Id:%b\r\n%b\r\n" % (msg_id, offset)
        else:
            head = b"NATS/1.0\r\nNats-Msg-Id:%b\r\nNats-Expected-Last-Msg-Id:%b\r\n%b\r\n" % (msg_id, expected, offset)
        size = len(head)
        parts.append(b"HPUB %b %b.%d %d %d\r\n%b%b\r\n" % (subject, inbox, number, size, size + len(data), head, data))
    return b"".join(parts)


class Acks(NamedTuple):
    """Acks that came together. All these publishes are stored."""

    numbers: list[int]
    duplicates: int  # so many of them were stored before
    sequence: int  # the newest sequence of the log among them


class PublishConnection:
    """A connection that publishes. Made by `open_publish_connection`."""

    def __init__(self, connection: Connection, inbox: bytes, *, fast: bool) -> None:
        """`fast` off: send through nats-py's public API."""
        self._connection = connection
        self._client = connection.client
        self._inbox = inbox
        self._fast = fast

    @property
    def is_open(self) -> bool:
        return self._connection.is_connected

    async def send(self, publishes: Iterable[Publish]) -> None:
        """Write all of them at once, and wait until the socket has taken most of what is unsent.

        Raises:
            LogUnavailable: The connection is lost. Any of them may have been stored.
        """
        if not self._fast:
            await self._send_publicly(publishes)
            return
        writer = writer_of(self._client)
        if writer is None or not self._client.is_connected:
            raise LogUnavailable("the connection to NATS was lost")
        with translated("the connection to NATS was lost"):
            writer.write(encode(publishes, self._inbox))
            await writer.drain()

    async def _send_publicly(self, publishes: Iterable[Publish]) -> None:
        inbox = self._inbox.decode()
        for publish in publishes:
            headers = {"Nats-Msg-Id": publish.msg_id.decode()}
            if publish.expected is not None:
                headers["Nats-Expected-Last-Msg-Id"] = publish.expected.decode()
            if publish.offset_header:
                headers[OFFSET_HEADER] = publish.offset_header.decode().removeprefix(f"{OFFSET_HEADER}:").strip()
            reply = f"{inbox}.{publish.number}"
            await self._connection.publish(publish.subject.decode(), publish.data, reply=reply, headers=headers)

    def abort(self) -> None:
        """Close the connection without waiting for a server that reads nothing."""
        abort(self._client)


async def open_publish_connection(
    connection: Connection, stream: str, *, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]
) -> PublishConnection:
    """Prepare a fresh connection. The callbacks run inside the reading of the socket; they must not raise.

    Raises:
        LogUnavailable: The connection was lost meanwhile.
    """
    inbox = connection.new_inbox().encode()

    async def on_message(message: Msg) -> None:
        answered(message, on_acks, on_error_ack)

    await connection.subscribe(f"{inbox.decode()}.*", on_message)
    await attach(connection.client, AckFrames(stream, inbox, on_acks).read)
    return PublishConnection(connection, inbox, fast=has_writer(connection.client))


def answered(message: Msg, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]) -> None:
    """Read one answer that `AckFrames` did not take: an error ack, or an ack of an unusual form."""
    number = int(message.subject.rpartition(".")[2])
    headers = message.headers or {}
    status = headers.get("Status")
    if status is not None:  # 503: nothing listens; 429: more than the server buffers for the stream
        unavailable = int(status) == NatsStatus.UNAVAILABLE
        reason = "no stream takes rounds now" if unavailable else headers.get("Description", "")
        on_error_ack(ErrorAck(number, int(status), reason))
        return
    try:
        reply = _decode_reply(message.data)
    except msgspec.MsgspecError as error:
        on_error_ack(ErrorAck(number, 0, f"the answer is no ack: {error}"))
        return
    if fault := reply.error:
        on_error_ack(ErrorAck(number, fault.err_code or fault.code, fault.description))
    elif reply.seq:
        on_acks(Acks([number], int(reply.duplicate), reply.seq))
    else:
        on_error_ack(ErrorAck(number, 0, "the ack has no sequence"))


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
            self._on_acks(Acks([int(number) for number, _, _ in found], duplicates, int(found[-1][1])))
        return end
