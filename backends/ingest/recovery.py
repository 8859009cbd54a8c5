"""Recover from a lost replication slot, where the operator allows it: create a new slot, then backfill.

Owns the order of the steps. First the check that the table can be read and the slot can be made. Then the new slot, so
that everything committed after it is captured; then the rounds that the table has and the log lacks; then the slot's
position is accepted as ours, and capture continues. Nothing is captured before that, so rounds keep their order; a
process that is killed in between finds the slot ahead of the log at its next start, and starts the recovery again.

Several processes may recover at once. They take turns to look at the slot and to renew it, and wait while another one
reads it, or while PostgreSQL or NATS is unavailable.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from backends.contract import Backend, BackendContext, BackendError, Captured, Rejected, SourceUnavailable
from backends.ingest.ingest_settings import IngestSections
from backends.ingest.run_ingest import run_ingest
from backends.publish.publisher import Rejects
from backends.registry import make_backend
from roundlog.backoff import Backoff
from roundlog.client.connection import connect
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.stream import read_log
from roundlog.tail import newest_ids
from rounds import Round

log = structlog.get_logger()

_LOOKBACK_IDS: Final = 100_000
"""How far below the newest id in the log a missing row may be, because its transaction was open for long."""
_RENEWED: Final = ("missing", "invalidated", "publication_missing", "publication_late", "table_not_published")
_FILLED_IN: Final = (*_RENEWED, "moved", "publication_changed")
_SLACK_S: Final = 60.0
_PAUSE_S: Final = (0.1, 5.0)
"""Between attempts. The first is short: mostly another process has just seen the same loss, and frees the slot."""


async def recover(
    error: BackendError,
    settings: IngestSections,
    context: BackendContext,
    rejects: Rejects,
    *,
    awaited: Callable[[str | None], None] = lambda _: None,
) -> Backend[Any] | None:
    """Recover from a lost slot, if that is what `error` reports and the options allow it.

    Waits without limit while PostgreSQL or NATS is unavailable, and while another process reads the slot.

    Args:
        error: The error that ended ingest.
        settings: Those of ingest.
        context: For the backend that continues.
        rejects: Handles rows that cannot become a round.
        awaited: Called with a sentence while the recovery has to wait, and then with None.

    Returns:
        A new backend that continues; None when there is no recovery from `error`.

    Raises:
        BackendError: The recovery failed.
        LogError: The log cannot be used until an operator acts.
    """
    options = settings.backend.options
    state = str(getattr(error, "state", ""))
    if settings.backend.name != "postgres-replication" or state not in _FILLED_IN or not _may_recover(options):
        return None
    backoff, logged = Backoff(*_PAUSE_S), ""
    is_known_late = state == "publication_late"
    while True:
        try:
            is_recovered = await _fill_in(error, state, settings, context, rejects, is_known_late=is_known_late)
            break
        except (SourceUnavailable, LogUnavailable) as reason:
            awaited(str(reason))
            if logged != str(reason):
                logged = str(reason)
                log.warning("recovery_awaited", state=state, error=logged)
        # Another process may have renewed the slot meanwhile: from now on only what is found counts.
        is_known_late = False
        await asyncio.sleep(backoff.next_s())
    awaited(None)
    return make_backend(settings.backend.name, options, context) if is_recovered else None


async def _fill_in(
    error: BackendError,
    state: str,
    settings: IngestSections,
    context: BackendContext,
    rejects: Rejects,
    *,
    is_known_late: bool,
) -> bool:
    """Renew the slot, store the missing rounds, and accept the slot; return False when nothing can be missing.

    Raises:
        SourceUnavailable: The server is away, or another process uses the slot. Call this again later.
        LogUnavailable: NATS is away. Call this again later.
        BackendError, LogError: As for `recover`.
    """
    from backends.postgres.backfill.table_backfill import TableBackfill
    from backends.postgres.replication.offset_check import accept_slot_after
    from backends.postgres.source_admin import ReplicationAdmin

    admin = ReplicationAdmin(settings.backend.options)
    scope = await RecoveryScope.of_log(settings.nats)
    if state == "missing" and not scope.floors:
        return False  # ingest never ran: nothing is lost, and the first start is up to the operator
    log.error("slot_lost", state=state, error=str(error), action="backfill")
    # Before anything is dropped: a backfill that could not read the table would leave a slot without its rounds.
    await TableBackfill(admin.options, context, settings.nats).check()
    if state in _RENEWED:
        await admin.renew(always=is_known_late)
    async with accept_slot_after(admin.options, settings.nats):
        # Ids of several tables say nothing of each other; each is read from its oldest row.
        is_one = len(admin.options.all_tables) == 1 and admin.options.all_tables[0].has_ordered_ids
        first = scope.first if is_one and await admin.has_unique_ids() else None
        backfill = TableBackfill(admin.options, context, settings.nats, first=first)
        publish = settings.publish.holding_nothing_back()
        stats = await run_ingest(_Missing(backfill, scope), settings.nats, publish, rejects=rejects, name="recovery")
    log.warning("slot_recovered", from_id=first or 0, stored=stats.acked, left_out=backfill.left_out)
    return True


def _may_recover(options: Mapping[str, object]) -> bool:
    return options.get("on_lost") == "backfill"


class RecoveryScope:
    """Which rounds of the table may be missing from the log: young enough to be kept, and near or after the newest."""

    def __init__(self, floors: Mapping[str, int], oldest_ms: int) -> None:
        """Take the lowest id of each game (0 for games that are not named) and the earliest commit, in Unix ms."""
        self.floors = floors
        self._oldest_ms = oldest_ms

    @classmethod
    async def of_log(cls, settings: LogSettings) -> "RecoveryScope":
        """Ask the log.

        Raises:
            LogError: It cannot be read.
        """
        async with connect(settings, name="recovery") as nc:
            info = await read_log(nc, settings)
            newest = await newest_ids(nc, info.stream)
        # Older rounds have expired, or were in the table before the first capture: clients must not see them as new.
        # Where commit times are not available, the round's end stands for its commit, which may be slightly later.
        expired_s = datetime.now(UTC).timestamp() - settings.max_age_s
        first_s = expired_s if info.first_at is None else max(expired_s, info.first_at.timestamp())
        slack_s = min(_SLACK_S, settings.max_age_s / 10)
        floors = {game: max(0, number - _LOOKBACK_IDS) for game, number in newest.items()}
        return cls(floors, int((first_s - slack_s) * 1000))

    @property
    def first(self) -> int:
        """The lowest id, where ids of all games grow together."""
        return max(self.floors.values(), default=0)

    def wants(self, item: Captured[Any] | Rejected[Any]) -> bool:
        """Whether to publish an item of a backfill. The round of a correction is in the log, whenever it was."""
        return isinstance(item, Rejected) or item.is_correction or item.round in self

    def __contains__(self, round_: Round) -> bool:
        return round_.round_id >= self.floors.get(round_.game_slug, 0) and round_.timestamp >= self._oldest_ms


class _Missing:
    """A backend without the rounds outside the scope. Implements `backends.contract.Backend`."""

    def __init__(self, backend: Backend[Any], scope: RecoveryScope) -> None:
        self._backend = backend
        self._scope = scope

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._backend.open()

    async def read(self) -> AsyncIterator[Sequence[Captured[Any] | Rejected[Any]]]:
        async for batch in self._backend.read():
            if items := [item for item in batch if self._scope.wants(item)]:
                yield items

    def confirm(self, offset: Any) -> None:
        self._backend.confirm(offset)
