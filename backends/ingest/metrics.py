"""The numbers of an ingest process for Prometheus, and whether it is ready.

Reads numbers from where they are counted when somebody asks. Knows nothing of any backend but the words of its
status.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from backends.backlog import BacklogWatch
from backends.ingest.instrumented import BOUNDS_S, Instrumented
from backends.publish.acks import Stats

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_STUCK_S: Final = 10.0
"""A round that has waited so long for its ack says that the log takes nothing."""
_NOT_READY: Final = (
    "connecting",
    "missing",
    "invalidated",
    "foreign",
    "moved",
    "publication_missing",
    "publication_late",
    "publication_changed",
    "publication_changed",
    "table_not_published",
)
_LEFT: Final = "left"
"""The backend let its source go, since the log takes nothing."""


class IngestMetrics:
    """What one ingest process tells about itself."""

    def __init__(self, observed: Instrumented[Any], backend: str, backlog: BacklogWatch) -> None:
        self.observed = observed
        """What is watched; another one after a recovery."""
        self._backend = backend
        self._backlog = backlog
        self.stats: Callable[[], Stats] = Stats
        """The publisher's numbers; set once there is one."""

    def obstacle(self) -> str | None:
        """Say in one word why rounds do not flow now; None: they do, or would."""
        if not self.observed.is_open:
            return "starting"
        if (state := self._state()) in _NOT_READY:
            return f"source_{state}"
        return "log_stuck" if state == _LEFT or self.observed.waiting_s > _STUCK_S else None

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric with its value of now; called by the Prometheus client."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge
        from prometheus_client.core import HistogramMetricFamily as Histogram

        stats, observed, status = self.stats(), self.observed, self.observed.status
        yield Counter("ingest_rounds_read", "Items that the backend yielded.", value=observed.yielded)
        yield Counter("ingest_rounds_acked", "Rounds that the log stored for us.", value=stats.acked)
        yield Counter("ingest_rounds_doubled", "Rounds that the log had already.", value=stats.duplicates)
        yield Counter("ingest_rounds_rejected", "Items that cannot become a round.", value=stats.rejected)
        yield Counter("ingest_rounds_resent", "Publishes beyond the first of a round.", value=stats.resent)
        yield Gauge("ingest_rounds_unacked", "Read and not yet stored.", value=observed.yielded - observed.acked)
        yield Gauge("ingest_ready", "1 when rounds flow, or would.", value=int(self.obstacle() is None))
        reconnects = Counter("ingest_reconnects", "Connections made anew.", labels=["to"])
        reconnects.add_metric(["log"], stats.reconnects)
        reconnects.add_metric(["source"], getattr(status, "reconnects", 0))
        yield reconnects
        state = Gauge(
            "ingest_state", "What the source is doing: 1 for the state it is in.", labels=["backend", "state"]
        )
        state.add_metric([self._backend, self._state()], 1)
        yield state
        if (backlog := self._backlog.newest) is not None:
            help_text = "What the source has and was not told to be stored, asked of its server."
            yield Gauge(f"ingest_lag_{backlog.unit}", help_text, value=backlog.behind)
            age = Gauge("ingest_lag_seconds", "For how long the oldest of that has been there, to the 5 s.")
            age.add_metric([], self._backlog.behind_s or 0.0)
            yield age
        latency = Histogram("ingest_commit_to_ack_seconds", "From commit in the source to the ack of the log.")
        counts = observed.commit_to_ack.counts
        names = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
        buckets = [(name, float(sum(counts[: index + 1]))) for index, name in enumerate(names)]
        latency.add_metric([], buckets, sum_value=observed.commit_to_ack.sum_s)
        yield latency

    def _state(self) -> str:
        return str(getattr(self.observed.status, "state", "reading"))
