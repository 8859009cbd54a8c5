"""Read stored rounds from the log, in pages, without leaving any state in the server.

Owns the requests that relays make of the log: batched direct get (nats-server >= 2.11), answered by any replica, on a
connection of its own, so that a page never stands in front of a live round. A replica may be behind, so before
"nothing more" is believed in a cluster, the leader is asked too.
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md
"""

import asyncio
import itertools
import re
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, Self

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from roundlog.connection import connect
from roundlog.entry import LogEntry
from roundlog.errors import LogUnavailable
from roundlog.leader import ask_leader
from roundlog.parser import RoundParser, attach, handled_by_parser
from roundlog.settings import LogSettings
from rounds.subjects import LOG_SUBJECTS, log_subject
from rounds.times import utc_text

_ANSWER_S: Final = 5.0
_PAGE_BYTES: Final = 1 << 20
_PENDING: Final = re.compile(rb"\r\nNats-Num-Pending: ([0-9]+)")
_STATUS: Final = re.compile(rb"NATS/1\.0 ([0-9]{3})([^\r]*)")
_NOT_FOUND: Final = 404


class Page(NamedTuple):
    """Entries in log order; between the first asked for and the last of them, none is missing that still exists."""

    entries: list[LogEntry]
    remaining: int
    """How many more the log holds after the last of `entries`, of the games asked for."""


class _Answer:
    """A page that is being received."""

    __slots__ = ("_single", "done", "entries", "remaining")

    def __init__(self, *, single: bool) -> None:
        self._single = single  # asked for one message: it comes alone, with no end of batch
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.entries: list[LogEntry] = []
        self.remaining = 0

    def take(self, entries: list[LogEntry]) -> None:
        """Take stored messages, whatever was stored."""
        if not self.done.done():
            self.entries += entries
            if self._single:
                self.done.set_result(None)

    def take_status(self, headers: bytes) -> None:
        """Take what says how a page ends."""
        status = _STATUS.match(headers)
        if status is None or self.done.done():
            return
        code, text = status[1], status[2]
        if code == b"204":  # the end of a batch
            pending = _PENDING.search(headers)
            self.remaining = int(pending[1]) if pending else 0
            self.done.set_result(None)
        elif code == b"404":  # nothing (any more) where the page was to begin
            self.done.set_result(None)
        else:
            reason = (code + text).decode(errors="replace").strip()
            self.fail(LogUnavailable(f"the log answered {reason!r}"))

    def fail(self, error: LogUnavailable) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Count(NamedTuple):
    """From `sequence` on, the log has so many rounds of a game."""

    sequence: int
    rounds: int


class LogReader:
    """Reads one log. Entered once per process; connects when it is first asked, and again by itself."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._subject = f"$JS.API.DIRECT.GET.{settings.stream}"
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._nc: Client | None = None
        self._inbox = ""
        self._numbers = itertools.count()
        self._answers: dict[int, _Answer] = {}
        self.requests = 0
        """Requests sent to the log since the start of this process."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def page(self, start: int, *, limit: int, game: str | None = None) -> Page:
        """Read up to `limit` entries from sequence `start` on, of one game or of all; at most about 1 MB.

        Raises:
            LogUnavailable: No answer in time; nothing is known beyond what was read before.
        """
        return await self._get({"seq": max(start, 1), "batch": limit, "next_by_subj": _subject_of(game)})

    async def page_up_to(self, known: int, start: int, *, limit: int, game: str | None = None) -> Page:
        """Read as `page` does, from a log that is known to have reached sequence `known`.

        A replica that is behind ends a page too early and cannot know. So when nothing seems to remain before `known`,
        the stream's leader, which is never behind, is asked for what follows, and what it has is put at the end.
        """
        page = await self.page(start, limit=limit, game=game)
        end = page.entries[-1].sequence if page.entries else start - 1
        if page.remaining or end >= known or self._settings.replicas == 1:
            return page
        entry = await self.next_of_leader(end + 1, game=game)
        return page if entry is None else Page([*page.entries, entry], remaining=1)

    async def reached(self, sequence: int) -> int | None:
        """Return a sequence that the log has reached and that is not before `sequence`; None when it ends before.

        For a sequence beyond what `last` says, which a replica may have said that is behind.
        """
        if self._settings.replicas == 1:
            return None
        entry = await self.next_of_leader(sequence)
        return None if entry is None else entry.sequence

    async def next_of_leader(self, start: int, *, game: str | None = None) -> LogEntry | None:
        """Ask the stream's leader for the first entry from sequence `start` on; None when there is none."""
        nc = await self._connected()
        request = {"seq": max(start, 1), "next_by_subj": _subject_of(game)}
        self.requests += 1
        try:
            answer = await ask_leader(nc, self._settings.stream, request)
        except (NatsError, TimeoutError, OSError) as error:
            raise _no_answer(error) from error
        if answer.message is not None:
            return LogEntry(answer.message.seq, answer.message.subject.rpartition(".")[2], answer.message.data)
        if answer.error.code == _NOT_FOUND:
            return None
        raise LogUnavailable(f"the log's leader answered {answer.error.description!r}")

    async def since(self, since_ms: int) -> int | None:
        """Return the sequence of the first round stored at or after a time (Unix ms); None when there is none yet."""
        page = await self._get({"start_time": utc_text(since_ms), "batch": 1, "next_by_subj": LOG_SUBJECTS})
        return page.entries[0].sequence if page.entries else None

    async def newest(self) -> list[LogEntry]:
        """Return the newest round of every game, in log order."""
        return (await self._get({"multi_last": [LOG_SUBJECTS], "batch": 1000})).entries

    async def first(self) -> int | None:
        """Return the sequence of the oldest round there is; None when the log is empty."""
        page = await self.page(1, limit=1)
        return page.entries[0].sequence if page.entries else None

    async def last(self) -> int:
        """Return the sequence of the newest round; 0 when the log is empty."""
        page = await self._get({"last_by_subj": LOG_SUBJECTS}, single=True)
        return page.entries[0].sequence if page.entries else 0

    async def nth_last(self, game: str, count: int, *, before: int) -> int | None:
        """Return the sequence of the `count`-th last round of a game before sequence `before`, or of its oldest.

        None when it has none at all.
        By counting, not by reading: some ten small requests, however long the log is.
        """
        beyond = await self._count_from(before, game)
        low, high = await self._count_from(1, game), beyond
        wanted = count + beyond.rounds  # rounds from the place that is sought to the end of the log
        if low.rounds == beyond.rounds:
            return None
        if low.rounds <= wanted:
            return low.sequence
        for attempt in itertools.count():
            if low.rounds == wanted or high.sequence - low.sequence <= 1:
                break
            # Rounds are spread evenly, more or less; every other guess halves what is left, should they not be.
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

    async def _count_from(self, start: int, game: str) -> "_Count":
        """Count the rounds of a game from sequence `start` on, without reading them."""
        page = await self.page(start, limit=1, game=game)
        return _Count(page.entries[0].sequence if page.entries else start, page.remaining + len(page.entries))

    async def _get(self, request: dict[str, Any], *, single: bool = False) -> Page:
        answer = _Answer(single=single)
        number = next(self._numbers)
        self._answers[number] = answer
        self.requests += 1
        try:
            nc = await self._connected()
            payload = msgspec.json.encode(request if single else {**request, "max_bytes": _PAGE_BYTES})
            await nc.publish(self._subject, payload, reply=f"{self._inbox}.{number}")
            async with asyncio.timeout(_ANSWER_S):
                await answer.done
        except (NatsError, TimeoutError, OSError) as error:
            raise _no_answer(error) from error
        finally:
            del self._answers[number]
        return Page(answer.entries, answer.remaining)

    async def _connected(self) -> Client:
        if self._nc is None:
            async with self._connecting:
                if self._nc is None:
                    nc = await self._stack.enter_async_context(
                        connect(self._settings, name="stream-relay reader", on_disconnected=self._on_disconnected)
                    )
                    self._inbox = nc.new_inbox()
                    await nc.subscribe(f"{self._inbox}.*", cb=handled_by_parser)
                    await nc.flush()
                    attach(nc, RoundParser(nc, self._inbox, self._on_entries, self._on_status))
                    self._nc = nc
        if not self._nc.is_connected:
            raise LogUnavailable("NATS is not reachable")
        return self._nc

    async def _on_disconnected(self) -> None:
        """The rest of what was asked for never comes."""
        for answer in self._answers.values():
            answer.fail(LogUnavailable("the connection to NATS was lost"))

    def _on_entries(self, number: bytes, entries: list[LogEntry]) -> None:
        answer = self._answers.get(int(number))
        if answer is not None:
            answer.take(entries)

    def _on_status(self, number: bytes, headers: bytes) -> None:
        answer = self._answers.get(int(number))
        if answer is not None:
            answer.take_status(headers)


def _no_answer(error: Exception) -> LogUnavailable:
    return LogUnavailable(f"the log did not answer: {str(error) or type(error).__name__}")


def _subject_of(game: str | None) -> str:
    return LOG_SUBJECTS if game is None else log_subject(game)
