"""A connection that publishes rounds: many in one write and many acks out of one read, or as a batch.

Where nats-py lacks what the fast path needs (see `nats_internals`), publishes and acks go through its public API.
Knows nothing of what is sent again. Why: docs/adr/0003-own-publish-pipeline.md and 0023-fast-ingest-batches.md
"""

from collections.abc import Callable, Iterable, Sequence

from nats.aio.msg import Msg

from roundlog.client.connection import Connection
from roundlog.client.faults import translated
from roundlog.client.nats_internals import abort, attach, drop_unsent, has_writer, writer_of
from roundlog.log_errors import LogUnavailable
from roundlog.publish.answers import AckFrames, Acks, ErrorAck, answered
from roundlog.publish.fast_batch import FastBatch
from roundlog.publish.hpub import Publish, encode
from roundlog.stream import LogInfo
from roundlog.tail import OFFSET_HEADER


class PublishConnection:
    """A connection that publishes. Made by `open_publish_connection`."""

    def __init__(self, connection: Connection, inbox: bytes, *, fast: bool) -> None:
        """`fast` off: send through nats-py's public API."""
        self._connection = connection
        self._client = connection.client
        self.inbox = inbox
        """The prefix of the reply subjects."""
        self._fast = fast
        self._batches = 0
        self.batch: FastBatch | None = None
        """The newest batch."""

    @property
    def is_open(self) -> bool:
        return self._connection.is_connected

    async def send(self, publishes: Iterable[Publish]) -> None:
        """Write all of them at once, and wait until the socket has taken most of what is unsent.

        Raises:
            LogUnavailable: The connection is lost. Any of them may have been stored.
        """
        publishes = list(publishes)
        await self._send(publishes, [b"%b.%d" % (self.inbox, publish.number) for publish in publishes])

    async def send_batch(self, publishes: Sequence[Publish], *, head: int) -> None:
        """Send two or more as one batch: none is stored without those before it.

        Call it only when everything that was sent before is answered, and with rounds that were never sent before:
        nats-server 2.15.1 acks a publish in a batch when its id is that of a message that was lost in an election.
        `head` is the newest known sequence of the log.

        Raises:
            LogUnavailable: The connection is lost. Any of them may have been stored.
        """
        self._batches += 1
        self.batch = FastBatch(self.inbox, self._batches, [publish.number for publish in publishes], head=head)
        await self._send(publishes, self.batch.replies())

    async def _send(self, publishes: Sequence[Publish], replies: Sequence[bytes]) -> None:
        if not self._fast:
            await self._send_publicly(publishes, replies)
            return
        writer = writer_of(self._client)
        if writer is None or not self._client.is_connected:
            raise LogUnavailable("the connection to NATS was lost")
        with translated("the connection to NATS was lost"):
            writer.write(encode(publishes, replies))
            await writer.drain()

    async def _send_publicly(self, publishes: Sequence[Publish], replies: Sequence[bytes]) -> None:
        for publish, reply in zip(publishes, replies, strict=True):
            headers = {"Nats-Msg-Id": publish.msg_id.decode()}
            if publish.expected is not None:
                headers["Nats-Expected-Last-Msg-Id"] = publish.expected.decode()
            if publish.after is not None:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(publish.after)
            if publish.offset_header:
                headers[OFFSET_HEADER] = publish.offset_header.decode().removeprefix(f"{OFFSET_HEADER}:").strip()
            await self._connection.publish(
                publish.subject.decode(), publish.data, reply=reply.decode(), headers=headers
            )

    def drop_unsent(self, after_s: float) -> None:
        """Let no round leave this machine later than `after_s` seconds after it was sent, or once this is closed."""
        drop_unsent(self._client, after_s)

    def abort(self) -> None:
        """Close the connection without waiting for a server that reads nothing."""
        abort(self._client)


async def open_publish_connection(
    connection: Connection, info: LogInfo, *, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]
) -> PublishConnection:
    """Prepare a fresh connection. The callbacks run inside the reading of the socket; they must not raise.

    Args:
        connection: Where to publish.
        info: The log.
        on_acks: Takes the acks.
        on_error_ack: Takes each error ack.

    Raises:
        LogUnavailable: The connection was lost meanwhile.
    """
    inbox = connection.new_inbox().encode()

    async def on_message(message: Msg) -> None:
        answered(message, on_acks, on_error_ack)

    async def on_batch_message(message: Msg) -> None:
        if publishing.batch is not None and publishing.batch.has_reply(message.subject):
            publishing.batch.answered(message, on_acks, on_error_ack)

    # Before `attach`, whose round trip shows that the server knows both.
    await connection.subscribe(f"{inbox.decode()}.*", on_message)
    if info.allows_batches:
        await connection.subscribe(f"{inbox.decode()}.*.>", on_batch_message)
    await attach(connection.client, AckFrames(info.stream, inbox, on_acks).read)
    publishing = PublishConnection(connection, inbox, fast=has_writer(connection.client))
    return publishing
