"""Read stored rounds from the log, in pages, without leaving any state in the server.

Owns the one NATS request that relays make: batched direct get (nats-server >= 2.11), answered by any replica.
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from backends.log import LogUnavailable
from relay.item import LogEntry
from rounds.subjects import LOG_SUBJECTS

_ANSWER_S: Final = 5.0
_PAGE_BYTES: Final = 1 << 20


class Page(NamedTuple):
    """Entries in log order, and how far they tell the whole truth."""

    entries: list[LogEntry]
    covered_to: int
    """Every sequence from the page's start to here is among `entries` or gone."""


class LogReader:
    """Reads one stream over a connection that it shares with others."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._subject = f"$JS.API.DIRECT.GET.{stream}"

    async def last_sequence(self) -> int:
        """Return the sequence of the newest round, 0 when the log is empty.

        Raises:
            LogUnavailable: No answer in time; ask again later.
        """
        try:
            message = await self._nc.request(
                self._subject, msgspec.json.encode({"last_by_subj": LOG_SUBJECTS}), timeout=_ANSWER_S
            )
        except (NatsError, TimeoutError) as error:
            raise LogUnavailable(f"the log did not answer: {str(error) or type(error).__name__}") from error
        headers = message.headers or {}
        return int(headers.get("Nats-Sequence", 0))

    async def page(self, start: int, *, limit: int) -> Page:
        """Read up to `limit` entries from sequence `start` on; fewer when they exceed about 1 MB together.

        Raises:
            LogUnavailable: No answer in time, or the connection broke; nothing is known beyond what was read before.
        """
        entries: list[LogEntry] = []
        ended = asyncio.get_running_loop().create_future()

        async def collect(message: Msg) -> None:
            headers = message.headers or {}
            if message.data:
                entries.append(entry_of(headers, message.data))
            elif not ended.done():
                ended.set_result(headers)

        inbox = self._nc.new_inbox()
        request = {"seq": start, "batch": limit, "max_bytes": _PAGE_BYTES, "next_by_subj": LOG_SUBJECTS}
        try:
            subscription = await self._nc.subscribe(inbox, cb=collect)
            try:
                await self._nc.publish(self._subject, msgspec.json.encode(request), reply=inbox)
                async with asyncio.timeout(_ANSWER_S):
                    end = await ended
            finally:
                await subscription.unsubscribe()
        except (NatsError, TimeoutError) as error:
            raise LogUnavailable(f"the log did not answer: {str(error) or type(error).__name__}") from error
        status = end.get("Status", "")
        if status not in ("204", "404"):  # 204: end of batch; 404: nothing from `start` on
            raise LogUnavailable(f"the log answered {status} {end.get('Description', '')}".strip())
        return Page(entries, entries[-1].sequence if entries else start - 1)


def entry_of(headers: Mapping[str, str], data: bytes) -> LogEntry:
    """Read a stored message, got directly or republished: both carry the same headers."""
    return LogEntry(int(headers["Nats-Sequence"]), headers["Nats-Subject"].rpartition(".")[2], data)
