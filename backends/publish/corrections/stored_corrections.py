"""The corrections that the log has, as one publisher knows them, and the numbers of those that it is about to publish.

Owns when the log is read for them: on each connection, whenever another process may have stored some, and for a single
round that is not held in memory. The rules are in `revision_numbers`. Without corrections in the log it holds nothing.
Why: docs/adr/0036-corrections-in-the-log.md
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import structlog

from backends.publish.clock import boot_s
from backends.publish.corrections.revision_numbers import NumberedChange, RevisionNumbers
from backends.publish.window.acks import Entry, Stats
from roundlog.client.connection import Connection
from roundlog.log_errors import LogUnavailable
from roundlog.stream import LogInfo
from roundlog.tail import corrections_ends, stored_pages
from rounds import InvalidRound, Round, dedup_id
from rounds.subjects import corrections_subject

log = structlog.get_logger()


class StoredCorrections:
    """The corrections of one log, over all connections of one publisher."""

    def __init__(self, most: int, stats: Stats) -> None:
        """Hold at most so many rounds that have corrections."""
        self.revisions = RevisionNumbers(most)
        self._stats = stats
        self._epoch = ""
        self._read_to: dict[str, int] = {}  # by subject
        self.read_at = 0.0
        """When the corrections of the log were read last, in seconds of `boot_s`."""
        self._looked_up = b""  # the round that was looked up last
        self._is_warned = False

    async def load(self, connection: Connection, info: LogInfo) -> None:
        """Read the corrections that were stored since the last call, while nothing is in flight.

        What is unsettled has to be numbered again by `renumber`, before anything else happens.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost.
        """
        if info.epoch != self._epoch:
            self.revisions.clear()
            self._read_to.clear()
            self._epoch = info.epoch
        await self._take_new(connection, info, self.revisions.begin_loading)

    async def refresh(self, connection: Connection, info: LogInfo, round_: Round) -> None:
        """Read them at any time, and those of a round that may have been forgotten: the number after them is free.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost.
        """
        await self._take_new(connection, info, lambda: None)
        key = dedup_id(round_.game_slug, round_.round_id).encode()
        if not self.revisions.is_complete and key not in self.revisions:
            await self._look_up(connection, info, corrections_subject(round_.game_slug), key)
        self._looked_up = key

    def must_ask(self, key: bytes, now: float, lease_s: float) -> bool:
        """Whether `refresh` is needed before a change of this round is numbered.

        Another process may have stored corrections too. A number that is taken is refused by the server for as long as
        it recognises ids, and `lease_s` is a third of that.
        """
        if now - self.read_at > lease_s:
            return True
        return not self.revisions.is_complete and key not in self.revisions and key != self._looked_up

    def renumber(self, unsettled: Iterable[Entry[Any]]) -> int:
        """Give what is unsettled its number once more, after `load`; settle what the log has, and return how many."""
        entries = [entry for entry in unsettled if entry.correction is not None]
        again = self.revisions.renumber([entry.correction for entry in entries if entry.correction is not None])
        settled = 0
        for entry, numbered in zip(entries, again, strict=True):
            if numbered is None:
                entry.settled = True
                settled += 1
                if entry.attempts:
                    self._stats.acked += 1
                else:
                    self._stats.duplicates += 1
            elif entry.correction is None or numbered.round.revision != entry.correction.round.revision:
                entry.missing = 0
                entry.correction, entry.msg_id, entry.data = numbered, id_of(numbered), numbered.round.to_json()
        return settled

    async def _take_new(self, connection: Connection, info: LogInfo, begin: Callable[[], None]) -> None:
        began_at = boot_s()
        ends = await corrections_ends(connection, info.stream)
        found = self._new_of(connection, info, ends)
        if not self.read_at:
            # All that the log has, which may be more than fits in memory. Nothing is numbered yet.
            async for round_, offset in found:
                self.revisions.load(round_, has_offset=bool(offset), source=source_of(offset.encode()))
        else:
            new = [one async for one in found]
            # Nothing is awaited from here on: no change is numbered with half of this.
            begin()
            for round_, offset in new:
                self.revisions.load(round_, has_offset=bool(offset), source=source_of(offset.encode()))
        self._read_to.update(ends)
        self.read_at = began_at
        self._warn()

    async def _look_up(self, connection: Connection, info: LogInfo, subject: str, key: bytes) -> None:
        """Read the corrections of one round, among all those of its game."""
        found: list[tuple[Round, str]] = []
        pages = stored_pages(connection, info.stream, first=1, last=self._read_to.get(subject, 0), subject=subject)
        async for page in pages:
            for msg_id, offset, data in zip(page.ids, page.offsets, page.data, strict=True):
                if msg_id.startswith(key + b":") and (correction := _correction_of(data)) is not None:
                    found.append((correction, offset))
        for correction, offset in found:
            self.revisions.load(correction, has_offset=bool(offset), source=source_of(offset.encode()))

    async def _new_of(
        self, connection: Connection, info: LogInfo, ends: dict[str, int]
    ) -> AsyncIterator[tuple[Round, str]]:
        for subject, last in ends.items():
            first = self._read_to.get(subject, 0) + 1
            reached = first - 1
            async for page in stored_pages(connection, info.stream, first=first, last=last, subject=subject):
                reached = page.last
                for offset, data in zip(page.offsets, page.data, strict=True):
                    if (found := _correction_of(data)) is not None:
                        yield found, offset
            if reached < last:  # a number after these would be taken
                raise LogUnavailable(f"corrections up to {last} cannot be read; the last was {reached}")

    def _warn(self) -> None:
        if not self.revisions.is_complete and not self._is_warned:
            self._is_warned = True
            hint = "raise RELAY_PUBLISH_CORRECTION_ROUNDS"
            log.warning("corrections_not_held", rounds=len(self.revisions), hint=hint)


def id_of(numbered: NumberedChange) -> bytes:
    """Return the id of a correction in the log."""
    round_ = numbered.round
    return dedup_id(round_.game_slug, round_.round_id, round_.revision).encode()


def source_of(offset: bytes) -> bytes:
    """Return the name of the source in the text of an offset, see `HasOffsets`."""
    return offset.rpartition(b":")[0]


def _correction_of(data: bytes) -> Round | None:
    """Read a stored correction; None: another program has published something else."""
    try:
        round_ = Round.parse(data)
    except InvalidRound:
        return None
    return round_ if round_.revision > 1 else None
