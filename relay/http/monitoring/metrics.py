"""``/metrics``: the metrics of this relay for Prometheus, read from its parts when somebody scrapes.

No counter is kept twice, and the Prometheus client is not imported before the first scrape.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp import web

from relay.admission.held_bytes import HeldBytes
from relay.admission.strangers import Share
from relay.history.history import History
from relay.http.monitoring.access_metrics import access_metrics
from relay.http.monitoring.link_metrics import link_metrics
from relay.http.monitoring.round_metrics import round_metrics
from relay.http.monitoring.scrapes import Scrapes
from relay.http2.guards.fault_reports import FaultReports
from relay.links.link_registry import LinkRegistry
from relay.live.following.log_head import LogHead

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Metrics:
    """Collects the metrics of one relay."""

    def __init__(
        self,
        registry: LinkRegistry,
        history: History,
        held: HeldBytes | None = None,
        grpc: Share | None = None,
        faults: FaultReports | None = None,
    ) -> None:
        """Prepare to collect. None: it is not counted.

        Args:
            registry: The links.
            history: The rounds.
            held: What connections that are no links hold.
            grpc: The connections to the gRPC port.
            faults: Those of the peers of HTTP/2 connections.
        """
        self._registry = registry
        self._history = history
        self._held = held
        self._grpc = grpc
        self._faults = faults
        self._head: int | None = None
        self.scrape = Scrapes(self, prepare=self._ask_head).scrape
        """Answers a scrape, on any port."""

    @cached_property
    def _log_head(self) -> LogHead:
        return LogHead(self._registry.feed, self._history.hub)

    def table(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self.scrape)]

    async def _ask_head(self) -> None:
        self._head = await self._log_head.sequence()

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric with its current value; called by the Prometheus client."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        yield from link_metrics(self._registry, self._grpc)
        if self._held is not None:
            text = "Bytes of unfinished requests and unread answers, of connections that are not links."
            yield Gauge("relay_held_bytes", text, value=self._held.total)
            yield Counter("relay_held_shed", "Connections closed because of these bytes.", value=self._held.shed)
        if self._faults is not None:
            text = "HTTP/2 connections that were ended because of what their peers sent, by reason."
            faults = Counter("relay_http2_faults", text, labels=["reason"])
            for reason, count in self._faults.counts.items():
                faults.add_metric([reason], count)
            yield faults
        ready = int(self._registry.obstacle() is None)
        yield Gauge("relay_ready", "1 when new clients are admitted.", value=ready)
        yield from round_metrics(self._registry, self._history, self._head)
        yield from access_metrics(self._registry)
