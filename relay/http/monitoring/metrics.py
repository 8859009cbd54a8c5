"""``/metrics``: the metrics of this relay for Prometheus, read from its parts when somebody scrapes.

No counter is kept twice, and the Prometheus client is not imported before the first scrape.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp import web

from relay.admission.held_bytes import HeldBytes
from relay.config.log_output import dropped_lines
from relay.history.history import History
from relay.http.monitoring.scrapes import Scrapes
from relay.http.monitoring.usage_metrics import usage_metrics
from relay.links.link_registry import LinkRegistry
from relay.live.following.log_head import LogHead
from relay.live.link import CloseReason

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Metrics:
    """Collects the metrics of one relay."""

    def __init__(self, registry: LinkRegistry, history: History, held: HeldBytes | None = None) -> None:
        """Prepare to collect; `held`: what connections that are no links hold, None where it is not counted."""
        self._registry = registry
        self._history = history
        self._held = held
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

        hub, registry, history = self._history.hub, self._registry, self._history
        yield Gauge("relay_links", "Open connections.", value=registry.admission.links)
        yield Gauge(
            "relay_links_max",
            "Connections that fit, if all are like the open ones.",
            value=registry.admission.max_links,
        )
        help_text = "Links of the most expensive protocol that fit, by resource."
        limit = Gauge("relay_links_limit", help_text, labels=["resource"])
        for resource, count in registry.admission.limits.items():
            limit.add_metric([resource], count)
        yield limit
        held = Gauge("relay_connections", "HTTP connections that are not links.", labels=["group"])
        shed = Counter("relay_connections_shed", "HTTP connections closed to make room for others.", labels=["group"])
        for group, share in registry.admission.shares.items():
            held.add_metric([group], share.count)
            shed.add_metric([group], share.shed)
        yield held
        yield shed
        if self._held is not None:
            text = "Bytes of unfinished requests and unread answers, of connections that are not links."
            yield Gauge("relay_held_bytes", text, value=self._held.total)
            yield Counter("relay_held_shed", "Connections closed because of these bytes.", value=self._held.shed)
        yield Gauge("relay_ready", "1 when new clients are admitted.", value=int(registry.obstacle() is None))
        policy = registry.admission.policy
        yield Gauge("relay_keys", "API keys that are known, valid or not.", value=policy.known_keys)
        store_age = Gauge("relay_key_store_age_seconds", "Time since all of a key store was known.", labels=["store"])
        usable = Gauge("relay_key_store_usable", "1 when keys of the store may be used.", labels=["store"])
        faults = Gauge("relay_key_store_faults", "Entries of a key store with a fault.", labels=["store"])
        for layer in policy.layers:
            store_age.add_metric([layer.name], layer.age_s)
            usable.add_metric([layer.name], int(layer.is_usable))
            faults.add_metric([layer.name], len(layer.faults))
        yield store_age
        yield usable
        yield faults
        mismatch = Gauge(
            "relay_stream_mismatch", "1 for a setting that breaks a promise.", labels=["stream", "setting"]
        )
        for stream, difference in registry.feed.streams.broken():
            mismatch.add_metric([stream, difference.name], 1)
        yield mismatch
        # Not the last one known while the log is away: that would look as if no round was stored.
        head = float("nan") if self._head is None else self._head
        yield Gauge("relay_head_sequence", "Sequence of the newest round in the log.", value=head)
        yield Counter("relay_rounds", "Rounds published to at least one channel.", value=hub.stats.rounds)
        yield Counter("relay_deliveries", "Rounds written to links, live.", value=hub.stats.deliveries)
        yield Counter("relay_rounds_invalid", "Entries of the log that are no rounds.", value=hub.stats.invalid)
        yield Counter(
            "relay_links_slow",
            "Links ended because their client was too slow.",
            value=registry.ender.ended[CloseReason.SLOW],
        )
        yield Counter(
            "relay_rounds_repaired", "Rounds missed live and read from the log.", value=registry.feed.repaired
        )
        starts = Counter("relay_resumes", "Starts in the past, by what answered them.", labels=["source"])
        starts.add_metric(["memory"], history.stats.warm)
        starts.add_metric(["log"], history.stats.cold)
        yield starts
        yield Counter("relay_log_requests", "Requests for stored rounds sent to NATS.", value=history.log_requests)
        yield Gauge("relay_replays", "Replays under way.", value=history.stats.active)
        yield Counter("relay_rounds_replayed", "Rounds written by replays.", value=history.stats.rounds)
        yield Counter("relay_gaps", "Gaps reported to clients.", value=history.stats.gaps)
        yield Gauge("relay_ring_rounds", "Rounds kept in memory.", value=len(hub.ring))
        yield Counter("relay_log_lines_dropped", "Log lines dropped: stderr was not read.", value=dropped_lines())
        closed = Counter("relay_links_closed", "Links that ended, by reason.", labels=["reason"])
        for reason in CloseReason:  # all from the start: else the first of a kind would be no increase
            closed.add_metric([reason], registry.closed[reason])
        yield closed
        limits = registry.admission.of_clients
        yield Gauge(
            "relay_limits_relays", "Relays that count together, this one included.", value=1 + limits.other_relays()
        )
        limited = Counter("relay_limited", "Requests, links and messages over a limit.", labels=["limit"])
        for name, count in limits.ledger.refused.items():
            limited.add_metric([name], count)
        yield limited
        refused = Counter("relay_refused", "Refused clients, by reason and protocol.", labels=["reason", "protocol"])
        for (reason_text, protocol), count in registry.refusals.counts.items():
            refused.add_metric([reason_text, protocol], count)
        yield refused
        accounts = registry.admission.accounts
        yield Counter("relay_usage_reports_failed", "Reports of usage that failed.", value=accounts.reports_failed)
        yield Counter("relay_usage_hours_lost", "Hours whose last report was dropped.", value=accounts.hours_lost)
        yield Counter(
            "relay_refused_not_audited",
            "Refused credentials that are not in the audit log.",
            value=registry.refusals.credentials.lost,
        )
        if accounts.in_metrics:
            for _ in hub.settle_usage():
                pass
            yield from usage_metrics(accounts)
