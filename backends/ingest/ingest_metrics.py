"""The metrics of an ingest process for Prometheus, and its readiness.

Reads counters from where they are counted, at each scrape. Of a backend it knows only the words of its status.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from backends.backlog import BacklogWatch
from backends.ingest.instrumented import BOUNDS_S, Instrumented
from backends.publish.window.acks import Stats
from roundlog.promises.stream_watch import OBSTACLE, StreamWatch

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_LOG_STUCK: Final = "log_stuck"
_STUCK_S: Final = 10.0
"""When a round has waited this long for its ack, the log is considered stuck."""
_NOT_READY: Final = (
    "connecting",
    "missing",
    "invalidated",
    "foreign",
    "moved",
    "publication_missing",
    "publication_late",
    "publication_changed",
    "table_not_published",
)
_ROWS: Final = ("unfinished", "others", "reopened")
"""What a backend may count in its status."""
_LEFT: Final = "left"
"""The backend disconnected from its source because the log accepts nothing."""


class IngestMetrics:
    """The metrics of one ingest process."""

    def __init__(self, instrumented: Instrumented[Any], backend: str, backlog: BacklogWatch) -> None:
        self.instrumented = instrumented
        """The backend in use; replaced after a recovery."""
        self._backend = backend
        self._backlog = backlog
        self.stats: Callable[[], Stats] = Stats
        """Returns the publisher's counters; replaced when there is a publisher."""
        self.streams = StreamWatch()
        """What the publisher knows of the settings of its streams."""
        self._awaited: str | None = None
        self.has_log: Callable[[], bool] = lambda: True
        """Returns whether the log is connected; replaced as `stats` is."""
        self.dropped_lines: Callable[[], int] = int
        """Returns how many log lines were dropped; replaced by a process that counts them."""

    def obstacle(self) -> str | None:
        """Return in one word why rounds do not flow as promised; None: they do, or would if there were any."""
        if self.streams.sentence is not None:
            return OBSTACLE
        if self.streams.stopped is not None:
            return _LOG_STUCK
        if self._awaited is not None:
            return "source_connecting"
        if not self.instrumented.is_open:
            return "starting"
        if (state := self._state()) in _NOT_READY:
            return f"source_{state}"
        if state == _LEFT or self.instrumented.waiting_s > _STUCK_S:
            return _LOG_STUCK
        return None if self.has_log() else "log_unavailable"  # an idle source has no round that would wait

    def detail(self) -> str | None:
        """Return a sentence about `obstacle`, where a word is not enough."""
        return self.streams.sentence or self.streams.stopped or self._awaited

    def facts(self, _obstacle: str) -> Mapping[str, object]:
        """Return what ``/readyz`` reports beside an obstacle."""
        sentence = self.detail()
        return {} if sentence is None else {"detail": sentence}

    def set_awaited(self, reason: str | None) -> None:
        """Take why the source cannot be reached at the start; None: it was reached."""
        self._awaited = reason

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric with its current value; called by the Prometheus client."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge
        from prometheus_client.core import HistogramMetricFamily as Histogram

        stats, instrumented, status = self.stats(), self.instrumented, self.instrumented.status
        yield Counter("ingest_rounds_read", "Items that the backend yielded.", value=instrumented.yielded)
        yield Counter("ingest_rounds_acked", "Rounds that the log acknowledged as stored.", value=stats.acked)
        yield Counter("ingest_rounds_doubled", "Rounds that were in the log already.", value=stats.duplicates)
        yield Counter("ingest_rounds_rejected", "Items of the source that cannot become a round.", value=stats.rejected)
        yield Counter("ingest_rounds_resent", "Publishes of a round after its first.", value=stats.resent)
        yield Counter("ingest_corrections_published", "Corrections that the log lacked.", value=stats.corrections)
        help_text = "Changes of finished rounds that the log had, or that changed nothing."
        yield Counter("ingest_corrections_skipped", help_text, value=stats.corrections_skipped)
        help_text = "Times that this process handed over reading because it could not store rounds."
        yield Counter("ingest_handed_over", help_text, value=stats.handed_over)
        yield Gauge(
            "ingest_rounds_unacked", "Read and not yet stored.", value=instrumented.yielded - instrumented.acked
        )
        yield Gauge(
            "ingest_ready", "1 when rounds flow, or would if there were any.", value=int(self.obstacle() is None)
        )
        mismatch = Gauge(
            "ingest_stream_mismatch", "1 for a setting that breaks a promise.", labels=["stream", "setting"]
        )
        for stream, difference in self.streams.broken():
            mismatch.add_metric([stream, difference.name], 1)
        yield mismatch
        reconnects = Counter("ingest_reconnects", "Reconnects.", labels=["to"])
        reconnects.add_metric(["log"], stats.reconnects)
        reconnects.add_metric(["source"], getattr(status, "reconnects", 0))
        yield reconnects
        rows = Counter("ingest_rows", "Rows of the source that made no round, by why.", labels=["kind"])
        for kind in _ROWS:
            if (count := getattr(status, kind, None)) is not None:
                rows.add_metric([kind], count)
        yield rows
        state = Gauge("ingest_state", "State of the source: 1 for the current state.", labels=["backend", "state"])
        state.add_metric([self._backend, self._state()], 1)
        yield state
        if (backlog := self._backlog.newest) is not None:
            help_text = "Backlog of the source: what was not confirmed to it, as its server reports it."
            yield Gauge(f"ingest_lag_{backlog.unit}", help_text, value=backlog.behind)
            if backlog.kept_bytes is not None:
                yield Gauge("ingest_kept_bytes", "WAL that the server keeps for us.", value=backlog.kept_bytes)
            age = Gauge("ingest_lag_seconds", "Age of the oldest change in the backlog, to 5 s.")
            age.add_metric([], self._backlog.behind_s or 0.0)
            yield age
        if (unfinished := getattr(status, "unfinished_rows", None)) is not None:
            yield Gauge("ingest_rows_unfinished", "Rows that were read and are not finished yet.", value=unfinished)
            help_text = "Unfinished rows that are not read again, since there were too many."
            yield Counter("ingest_rows_given_up", help_text, value=status.given_up_rows)
        dropped = self.dropped_lines()
        yield Counter("ingest_log_lines_dropped", "Log lines dropped: stderr was not read.", value=dropped)
        latency = Histogram("ingest_commit_to_ack_seconds", "Time from the commit in the source to the log's ack.")
        counts = instrumented.commit_to_ack.counts
        names = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
        buckets = [(name, float(sum(counts[: index + 1]))) for index, name in enumerate(names)]
        latency.add_metric([], buckets, sum_value=instrumented.commit_to_ack.sum_s)
        yield latency

    def _state(self) -> str:
        return str(getattr(self.instrumented.status, "state", "reading"))
