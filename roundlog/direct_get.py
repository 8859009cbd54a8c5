"""Batched direct get: requests for stored messages, how they are addressed, and how an answer ends.

Any replica answers, one may be behind, and the server keeps no state (nats-server >= 2.11). Knows nothing of the
messages themselves: `roundlog.reader` reads whole rounds, `roundlog.tail` only their headers.
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self

import msgspec
from nats.aio.msg import Msg

from roundlog.client.codes import NatsStatus
from roundlog.client.connection import Connection
from roundlog.client.faults import translated
from roundlog.log_errors import LogUnavailable

_STATUS: Final = re.compile(rb"NATS/1\.0 ([0-9]{3})([^\r]*)")
_PENDING: Final = re.compile(rb"\r\nNats-Num-Pending: ([0-9]+)")


def direct_get_subject(stream: str) -> str:
    """Return the subject that takes requests for messages of a stream."""
    return f"$JS.API.DIRECT.GET.{stream}"


class TooManyResults(LogUnavailable):
    """The request matches more than the server answers at once. Nothing was sent."""


class AnswerEnd(NamedTuple):
    """The message without data that ends an answer."""

    status: int
    description: str
    remaining: int  # messages in the stream after the last of the batch that match the request

    @classmethod
    def of_block(cls, headers: bytes) -> Self | None:
        """Read a header block as the protocol has it; None: this message ends no answer."""
        status = _STATUS.match(headers)
        if status is None:
            return None
        pending = _PENDING.search(headers)
        description = status[2].decode(errors="replace").strip()
        return cls(int(status[1]), description, int(pending[1]) if pending else 0)

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> Self | None:
        """Read headers as nats-py has them; None: this message ends no answer."""
        status = headers.get("Status")
        if status is None:
            return None
        return cls(int(status), headers.get("Description", ""), int(headers.get("Nats-Num-Pending", 0)))

    @property
    def error(self) -> LogUnavailable | None:
        """The error that it reports; None: the answer is complete, and empty when nothing matched."""
        if self.status in (NatsStatus.END_OF_BATCH, NatsStatus.NOT_FOUND):
            return None
        kind = TooManyResults if self.status == NatsStatus.TOO_MANY_RESULTS else LogUnavailable
        return kind(f"the log answered '{self.status} {self.description}'")


async def get_batch(
    connection: Connection,
    stream: str,
    request: Mapping[str, Any],
    take: Callable[[Mapping[str, str], bytes], None],
    *,
    within_s: float,
    failure: str,
) -> AnswerEnd:
    """Ask for stored messages, hand the headers and the data of each to `take`, and return how the answer ends.

    `failure` begins the text of the error. Raises `LogUnavailable` without an answer in `within_s` seconds.
    """
    ended: asyncio.Future[AnswerEnd] = asyncio.get_running_loop().create_future()

    async def collect(message: Msg) -> None:
        headers = message.headers or {}
        end = AnswerEnd.of_headers(headers)
        if end is None:
            take(headers, message.data)
        elif not ended.done():
            ended.set_result(end)

    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox, collect)
    try:
        with translated(failure):
            async with asyncio.timeout(within_s):
                await connection.publish(direct_get_subject(stream), msgspec.json.encode(request), reply=inbox)
                return await ended
    finally:
        await connection.unsubscribe(subscription)
