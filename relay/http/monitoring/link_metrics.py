"""Metrics of links and of connections: how many there are, how many fit, and why they ended."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from relay.admission.strangers import Share
from relay.links.link_registry import LinkRegistry
from relay.live.link import CloseReason

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def link_metrics(registry: LinkRegistry, grpc: Share | None = None) -> Iterator["Metric"]:
    """Yield the metrics of links, and of connections; `grpc`: those to the gRPC port."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    admission = registry.admission
    yield Gauge("relay_links", "Open connections.", value=admission.links)
    yield Gauge(
        "relay_links_max",
        "Connections that fit, if all are like the open ones.",
        value=admission.max_links,
    )
    help_text = "Links of the most expensive protocol that fit, by resource."
    limit = Gauge("relay_links_limit", help_text, labels=["resource"])
    for resource, count in admission.limits.items():
        limit.add_metric([resource], count)
    yield limit
    held = Gauge(
        "relay_connections",
        "Connections: to the HTTP port those that are not links, to the gRPC port all.",
        labels=["group"],
    )
    shed = Counter("relay_connections_shed", "Connections closed to make room for others.", labels=["group"])
    shares = {**admission.shares, **({} if grpc is None else {"grpc": grpc})}
    for group, share in shares.items():
        held.add_metric([group], share.count)
        shed.add_metric([group], share.shed)
    yield held
    yield shed
    closed = Counter("relay_links_closed", "Links that ended, by reason.", labels=["reason"])
    for reason in CloseReason:  # all from the start: else the first of a kind would be no increase
        closed.add_metric([reason], registry.closed[reason])
    yield closed
