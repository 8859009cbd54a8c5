"""Read stored rounds from the log, in pages, without state in the server.

Owns the requests that relays make of the log: batched direct gets on a connection of its own, so that no page delays a
live round. Any replica answers them, and one may be behind, so in a cluster the end of a page is checked with the
stream's leader. All games are read by sequence, whatever the subjects of the messages, since the server then searches
nothing; what is no round is passed over here. Why: docs/adr/0045-pages-of-all-games-by-sequence.md
"""

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, Self

import msgspec

from roundlog.client.api import ask_api
from roundlog.client.codes import NatsStatus
from roundlog.client.connection import Connection, connect
from roundlog.client.nats_internals import attach
from roundlog.direct_get import AnswerEnd, direct_get_subject
from roundlog.entry import LogEntry, Page, add_run, joined, shortened
from roundlog.leader import StoredMessage, ask_leader
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.parser import RoundFrames
from roundlog.stream import StreamInfo, end_of_log
from rounds.cursor import Cursor
from rounds.subjects import LOG_SUBJECTS, stored_subject
from rounds.times import utc_text

_ANSWER_S: Final = 5.0
_PAGE_BYTES: Final = 1 << 20
_ALL: Final = ">"
"""Every message of the stream. It has next to no others than rounds: the server need not compare subjects."""
_PASSED: Final = 2000
"""Messages read at a time where none is a round."""
_LOOK_S: Final = 1.0
"""How old it may be that a stream has one replica, when it matters: one small request a second. An answer does not show
which replica it is of."""


class _PendingPage:
    """A page that is being received."""

    __slots__ = ("_single", "done", "entries", "others", "remaining")

    def __init__(self, *, single: bool) -> None:
        self._single = single  # one message was asked for: it comes alone, with no end of batch
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.entries: list[LogEntry] = []
        self.others: list[tuple[int, int]] = []
        self.remaining = 0

    def add(self, entries: list[LogEntry]) -> None:
        """Add entries in the order in which they came."""
        if not self.done.done():
            self.entries += entries
            if self._single:
                self.done.set_result(None)

    def pass_over(self, sequence: int) -> None:
        """Note where a message is that is no round."""
        if not self.done.done():
            add_run(self.others, sequence, sequence)
            if self._single:
                self.done.set_result(None)

    def finish(self, end: AnswerEnd) -> None:
        """Complete the page, or fail it when the log answered with an error."""
        if self.done.done():
            return
        if end.error is not None:
            self.done.set_exception(end.error)
        else:
            self.remaining = end.remaining
            self.done.set_result(None)

    def fail(self, error: LogUnavailable) -> None:
        """Raise `error` where the page is awaited."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # nobody may await it any more, which asyncio would log


class _Count(NamedTuple):
    """The number of rounds of a game from `sequence` to the end of the log."""

    sequence: int
    rounds: int


class LogReader:
    """Reads one log. Entered once per process; connects at its first request, and again by itself after a loss."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._subject = direct_get_subject(settings.stream)
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._connection: Connection | None = None
        self._inbox = ""
        self._numbers = itertools.count()
        self._pending: dict[int, _PendingPage] = {}
        self.replicas = settings.replicas
        """How many replicas the stream has: any of them answers, and one may be behind. An operator may add some."""
        self._look_at = 0.0
        self._looking = asyncio.Lock()
        self.requests = 0
        """Requests sent to the log since the start of this process."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def page(self, start: int, *, limit: int, game: str | None = None) -> Page:
        """Read up to `limit` entries from sequence `start` on, of one game or of all; at most about 1 MB.

        `game`, here and below, stands for a game's rounds or for their corrections, see `rounds.subjects`.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost. Every other method raises it too.
        """
        subject = _ALL if game is None else stored_subject(game)
        page = await self._get({"seq": max(start, 1), "batch": limit, "next_by_subj": subject})
        while page.others and page.remaining and not page.entries:
            more = await self._get({"seq": page.last + 1, "batch": _PASSED, "next_by_subj": subject})
            page = joined(page, more)
        return page if len(page.entries) <= limit else shortened(page, limit)

    async def page_up_to(self, known: int, start: int, *, limit: int, game: str | None = None) -> Page:
        """Read as `page` does, from a log that is known to have reached sequence `known`.

        A replica that is behind ends a page too early. So when nothing remains and the page ends before `known`, the
        stream's leader, which is never behind, is asked for the next entry, which is appended.
        """
        page = await self.page(start, limit=limit, game=game)
        end = page.last or start - 1
        if page.remaining or end >= known or not await self._is_replicated():
            return page
        entry = await self.next_of_leader(end + 1, game=game)
        if entry is None:
            return page
        if game is None and entry.sequence > end + 1:
            other = await self._ask_leader({"seq": end + 1, "next_by_subj": _ALL})
            if other is not None and other.seq < entry.sequence:  # what is between them is not gone: it is no round
                return joined(page, Page([entry], 1, [(other.seq, other.seq)]))
        return Page([*page.entries, entry], 1, page.others)

    async def reached(self, sequence: int) -> int | None:
        """Return a sequence from `sequence` on that the log has reached; None when it ends before.

        For a sequence after `last`, whose answer may come from a replica that is behind.
        """
        if not await self._is_replicated():
            return None
        entry = await self.next_of_leader(sequence)
        return None if entry is None else entry.sequence

    async def next_of_leader(self, start: int, *, game: str | None = None) -> LogEntry | None:
        """Ask the stream's leader for the first entry from sequence `start` on; None when there is none."""
        subject = LOG_SUBJECTS if game is None else stored_subject(game)
        message = await self._ask_leader({"seq": max(start, 1), "next_by_subj": subject})
        if message is None:
            return None
        return LogEntry(message.seq, message.subject.rpartition(".")[2], message.data)

    async def _ask_leader(self, request: dict[str, Any]) -> StoredMessage | None:
        self.requests += 1
        reply = await ask_leader(await self._connected(), self._settings.stream, request)
        if reply.message is not None or reply.error.code == NatsStatus.NOT_FOUND:
            return reply.message
        raise LogUnavailable(f"the log's leader answered {reply.error.description!r}")

    async def since(self, since_ms: int) -> int | None:
        """Return the sequence of the first round stored at or after a time (Unix ms); None when there is none yet."""
        page = await self._get({"start_time": utc_text(since_ms), "next_by_subj": LOG_SUBJECTS}, single=True)
        return page.entries[0].sequence if page.entries else None

    async def newest(self) -> list[LogEntry]:
        """Return the newest round of every game, in log order."""
        return (await self._get({"multi_last": [LOG_SUBJECTS], "batch": 1000})).entries

    async def first(self) -> int | None:
        """Return the sequence from which on the log has everything that was not deleted; None when it is empty.

        That is the sequence of its oldest round, unless an older message is none.
        """
        page = await self._get({"seq": 1, "next_by_subj": _ALL}, single=True)
        return page.last or None

    async def last(self) -> int:
        """Return the sequence of the newest round; 0 when the log is empty."""
        page = await self._get({"last_by_subj": LOG_SUBJECTS}, single=True)
        return page.entries[0].sequence if page.entries else 0

    async def end(self) -> Cursor:
        """Return the place of the newest round ever stored, in the log that there is now. The leader answers."""
        self.requests += 1
        return await end_of_log(await self._connected(), self._settings)

    async def nth_last(self, game: str, count: int, *, before: int) -> int | None:
        """Return the sequence of the `count`-th last round of a game before sequence `before`, or of its oldest.

        None when the game has no round at all. Counts instead of reading: about ten small requests for a log of any
        length.
        """
        high = await self._count_from(before, game)
        low = await self._count_from(1, game)
        wanted = count + high.rounds  # rounds from the sequence that is searched for to the end of the log
        if low.rounds == high.rounds:
            return None
        if low.rounds <= wanted:
            return low.sequence
        for attempt in itertools.count():
            if low.rounds == wanted or high.sequence - low.sequence <= 1:
                break
            # Assumes that rounds are spread evenly; every other guess halves the range, for those that are not.
            share = (low.rounds - wanted) / (low.rounds - high.rounds) if attempt % 2 == 0 else 0.5
            guess = low.sequence + max(
                1, min(high.sequence - low.sequence - 1, round(share * (high.sequence - low.sequence)))
            )
            found = await self._count_from(guess, game)
            if found.rounds >= wanted:
                low = found
            else:
                high = _Count(guess, found.rounds)
        return low.sequence

    async def _is_replicated(self) -> bool:
        """Whether the last answer may be of a replica that is behind."""
        if self.replicas > 1:
            return True
        async with self._looking:
            if self.replicas == 1 and (now := asyncio.get_running_loop().time()) >= self._look_at:
                connection = await self._connected()
                self.requests += 1
                info = await ask_api(connection, f"STREAM.INFO.{self._settings.stream}", None, StreamInfo)
                if info.error is None:
                    self.replicas = info.config.get("num_replicas", 1)
                self._look_at = now + _LOOK_S
        return self.replicas > 1

    async def _count_from(self, start: int, game: str) -> "_Count":
        """Count the rounds of a game from sequence `start` on, without reading them."""
        page = await self.page(start, limit=1, game=game)
        return _Count(page.entries[0].sequence if page.entries else start, page.remaining + len(page.entries))

    async def _get(self, request: dict[str, Any], *, single: bool = False) -> Page:
        # First the connection: a page that is registered fails when another caller gives up connecting.
        connection = await self._connected()
        page = _PendingPage(single=single)
        number = next(self._numbers)
        self._pending[number] = page
        self.requests += 1
        try:
            payload = msgspec.json.encode(request if single else {**request, "max_bytes": _PAGE_BYTES})
            with connection.asking(self._subject, "the log did not answer"):
                await connection.publish(self._subject, payload, reply=f"{self._inbox}.{number}")
                async with asyncio.timeout(_ANSWER_S):
                    await page.done
        finally:
            del self._pending[number]
        return Page(page.entries, page.remaining, page.others)

    async def _connected(self) -> Connection:
        if self._connection is None:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await self._connect()
        if not self._connection.is_connected:
            raise LogUnavailable("NATS is not reachable")
        return self._connection

    async def _connect(self) -> Connection:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                connect(self._settings, name="stream-relay reader", on_disconnected=self._on_disconnected)
            )
            self._inbox = connection.new_inbox()
            frames = RoundFrames(self._inbox, self._on_entries, self._on_end, self._on_other)
            await connection.subscribe(f"{self._inbox}.*", frames.on_message)
            await attach(connection.client, frames.read)
            await self._stack.enter_async_context(stack.pop_all())
        return connection

    async def _on_disconnected(self) -> None:
        """Fail all pending pages: their remaining entries never come."""
        for page in self._pending.values():
            page.fail(LogUnavailable("the connection to NATS was lost"))

    def _on_entries(self, number: bytes, entries: list[LogEntry]) -> None:
        page = self._pending.get(int(number))
        if page is not None:
            page.add(entries)

    def _on_end(self, number: bytes, end: AnswerEnd) -> None:
        page = self._pending.get(int(number))
        if page is not None:
            page.finish(end)

    def _on_other(self, number: bytes, sequence: int) -> None:
        page = self._pending.get(int(number))
        if page is not None:
            page.pass_over(sequence)
