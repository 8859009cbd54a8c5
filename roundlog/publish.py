"""The bytes between the publisher and nats-server: many rounds in one write, many acks out of one read.

Owns the one place that reaches into nats-py, whose public `publish` and subscriptions cost several times what the
server does per round; nats-py keeps signing in, TLS, pings and closing. Why: docs/adr/0003-own-publish-pipeline.md
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from roundlog.errors import LogUnavailable
from roundlog.tail import OFFSET_HEADER

HEADER_ROOM: Final = 512
"""No round's headers are longer: two ids of at most 64 + 1 + 19 characters, an offset of 64, and their names."""

WRONG_LAST_MSG_ID: Final = 10070
"""The log's newest message is not the one that the round was published on condition of."""
NO_STREAM: Final = 503
"""Nothing listens on the round's subject: the stream is gone, or nobody leads it now."""
TOO_LARGE: Final = 10054
"""The round is over the stream's own limit; it always will be."""


def offset_header(offset: bytes) -> bytes:
    """Write the header line that tells where in its source a round stands."""
    return b"%b:%b\r\n" % (OFFSET_HEADER.encode(), offset)


class Publish(NamedTuple):
    """One publish: where to, under which number its ack comes, and on what condition."""

    subject: bytes
    number: int
    msg_id: bytes
    expected: bytes | None  # the id that the log's newest message must have; None: any
    offset_header: bytes  # the header line that tells where in its source the round stands; empty: none
    data: bytes


class ErrorAck(NamedTuple):
    """An error ack: this round is not stored."""

    number: int
    code: int  # JetStream's err_code, or the status (503: nothing listens on the subject) when there is none
    reason: str


class _Error(msgspec.Struct):
    err_code: int = 0
    code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


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
    """Acks that came together: all of them say stored."""

    numbers: list[int]
    duplicates: int  # so many of them were stored before
    sequence: int  # the newest sequence of the log among them


class PublishLink:
    """A nats-py connection, used to publish. One per connection; get it from `open_publish_link`."""

    def __init__(self, nc: Client, inbox: bytes) -> None:
        self._nc = nc
        self._inbox = inbox

    @property
    def is_open(self) -> bool:
        return self._nc.is_connected

    async def send(self, publishes: Iterable[Publish]) -> None:
        """Write all of them at once, and wait until the socket has taken most of what is unsent.

        Raises:
            LogUnavailable: The connection is lost. Any of them may have been stored.
        """
        transport = self._nc._transport  # noqa: SLF001 - see the module's docstring
        try:
            if transport is None or not self._nc.is_connected:
                raise ConnectionResetError("connection lost")
            transport.write(encode(publishes, self._inbox))
            await transport.drain()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise LogUnavailable(f"the connection to NATS was lost: {error}") from error

    def abort(self) -> None:
        """Close the connection without waiting for a server that takes nothing any more."""
        writer = getattr(self._nc._transport, "_io_writer", None)  # noqa: SLF001 - see the module's docstring
        if writer is not None:
            writer.transport.abort()


async def open_publish_link(
    nc: Client, stream: str, *, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]
) -> PublishLink:
    """Make a fresh connection a publisher's. The callbacks run inside the reading of the socket: they must not raise.

    Raises:
        LogUnavailable: The connection was lost meanwhile.
    """
    inbox = nc.new_inbox().encode()
    parser = AckParser(nc, stream, inbox, on_acks)

    async def on_message(message: Msg) -> None:
        answered(message, on_acks, on_error_ack)

    try:
        await nc.subscribe(f"{inbox.decode()}.*", cb=on_message)
        await nc.flush()  # nothing is half read now: its answer was the last thing to come
    except (NatsError, OSError, TimeoutError) as error:
        raise LogUnavailable(f"the connection to NATS was lost: {str(error) or type(error).__name__}") from error
    nc._ps = parser  # noqa: SLF001 - see the module's docstring
    return PublishLink(nc, inbox)


def answered(message: Msg, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]) -> None:
    """Read one answer that the fast path left to nats-py: an error, or an ack of an unusual form."""
    number = int(message.subject.rpartition(".")[2])
    headers = message.headers or {}
    status = headers.get("Status")
    if status is not None:  # 503: nobody listens; 429: more than the server buffers for the stream
        reason = "no stream takes rounds now" if int(status) == NO_STREAM else headers.get("Description", "")
        on_error_ack(ErrorAck(number, int(status), reason))
        return
    try:
        answer = _decode_answer(message.data)
    except msgspec.MsgspecError as error:
        on_error_ack(ErrorAck(number, 0, f"the answer is no ack: {error}"))
        return
    if fault := answer.error:
        on_error_ack(ErrorAck(number, fault.err_code or fault.code, fault.description))
    elif answer.seq:
        on_acks(Acks([number], int(answer.duplicate), answer.seq))
    else:
        on_error_ack(ErrorAck(number, 0, "the ack names no sequence"))


class AckParser(Parser):
    """Takes runs of plain acks out of what arrives, and leaves everything else to nats-py."""

    def __init__(self, nc: Client, stream: str, inbox: bytes, on_acks: Callable[[Acks], None]) -> None:
        super().__init__(nc)
        self._on_acks = on_acks
        self._held = b""
        self._start = b"MSG " + inbox + b"."
        ack = rb'%b(\d+) \d+ \d+\r\n\{"stream":"%b", ?"seq":(\d+)(, ?"duplicate": ?true)?\}\r\n' % (
            re.escape(self._start),
            re.escape(stream.encode()),
        )
        self._ack = re.compile(ack)
        self._run = re.compile(b"(?:%b)*" % ack.replace(b"(\\d+)", b"\\d+").replace(b"(, ", b"(?:, "))

    async def parse(self, data: bytes = b"") -> None:
        if self.buf or self.state != AWAITING_CONTROL_LINE:  # nats-py is in the middle of something
            await super().parse(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
        run = self._run.match(data)
        end = run.end() if run is not None else 0
        if end:
            found = self._ack.findall(data, 0, end)
            duplicates = sum(1 for _, _, duplicate in found if duplicate)
            self._on_acks(Acks([int(number) for number, _, _ in found], duplicates, int(found[-1][1])))
        rest = data[end:]
        if self._is_half_an_ack(rest):
            self._held = rest
        elif rest:
            await super().parse(rest)

    def _is_half_an_ack(self, rest: bytes) -> bool:
        start = self._start
        return rest.count(b"\r\n") < 2 and rest[: len(start)] == start[: len(rest)] and rest != b""
