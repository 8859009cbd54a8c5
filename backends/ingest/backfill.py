"""Backfill: publish rows that are already in the table, except those that the log has."""

from collections.abc import Callable

from backends.contract import BackendContext
from backends.ingest.ingest_settings import IngestSections
from backends.ingest.run_ingest import run_ingest
from backends.postgres.backfill.table_backfill import Range, TableBackfill
from backends.postgres.replication.offset_check import accept_slot_after
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.source_admin import admin_of
from backends.publish.rejects_stream import RejectsStream
from backends.publish.window.acks import Stats


class Backfill:
    """One run over a range of ids; running again continues where the log ends."""

    def __init__(
        self,
        settings: IngestSections,
        context: BackendContext,
        *,
        table: str | None,
        first: int | None,
        last: int | None,
        rate: float,
        on_progress: Callable[[Range, int], None],
    ) -> None:
        """Prepare; ids from `first` to `last`, both inclusive and None for all, at most `rate` a second (0: no limit).

        `table` is one of several, None for all.

        Raises:
            BackendError: The backend has no table, or its options are wrong.
        """
        self._settings = settings
        self._options = admin_of(settings.backend.name, settings.backend.options).options
        self._is_open_ended = last is None and (table is None or len(self._options.all_tables) == 1)
        self._table = TableBackfill(
            self._options,
            context,
            settings.nats,
            table=table,
            first=first,
            last=last,
            rate=rate,
            on_progress=on_progress,
        )

    @property
    def left_out(self) -> int:
        """Rounds of the range that were in the log already."""
        return self._table.left_out

    async def run(self) -> Stats:
        """Run until the range is in the log; return the publisher's numbers.

        Raises:
            BackendError: The table cannot be read.
            LogError: The log is there but is not as configured.
        """
        nats, options = self._settings.nats, self._options
        publish = self._settings.publish.holding_nothing_back()  # what we confirm is only shown
        async with RejectsStream(nats, self._settings.backend.name) as rejects:
            if not (self._is_open_ended and isinstance(options, ReplicationOptions)):
                return await run_ingest(self._table, nats, publish, rejects=rejects, name="backfill")
            # Ingest may continue from a slot that was moved or recreated once the rounds that it lacks are in the log.
            async with accept_slot_after(options, nats):
                return await run_ingest(self._table, nats, publish, rejects=rejects, name="backfill")
