"""Metrics of access: keys and their stores, limits, refusals, and usage by key."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from relay.http.monitoring.usage_metrics import usage_metrics
from relay.links.link_registry import LinkRegistry

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def access_metrics(registry: LinkRegistry) -> Iterator["Metric"]:
    """Yield the metrics of keys, stores, limits and refusals; those of single keys where the settings ask for them."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    admission = registry.admission
    policy = admission.policy
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
    limits = admission.of_clients
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
    accounts = admission.accounts
    yield Counter("relay_usage_reports_failed", "Reports of usage that failed.", value=accounts.reports_failed)
    yield Counter("relay_usage_hours_lost", "Hours whose last report was dropped.", value=accounts.hours_lost)
    yield Counter(
        "relay_refused_not_audited",
        "Refused credentials that are not in the audit log.",
        value=registry.refusals.credentials.lost,
    )
    if accounts.in_metrics:
        for _ in registry.settle_usage():
            pass
        yield from usage_metrics(accounts)
