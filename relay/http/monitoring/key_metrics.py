"""The metrics of keys and of the stores that they come from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from relay.admission.key_policy import KeyPolicy

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def key_metrics(policy: KeyPolicy) -> Iterator["Metric"]:
    """Yield the metrics with their current values."""
    from prometheus_client.core import GaugeMetricFamily as Gauge

    yield Gauge("relay_keys", "API keys that are known, valid or not.", value=policy.known_keys)
    age = Gauge("relay_key_store_age_seconds", "Time since all that a key store held was known.", labels=["store"])
    usable = Gauge("relay_key_store_usable", "1 when keys of the store may be used.", labels=["store"])
    faults = Gauge("relay_key_store_faults", "Entries of a key store with a fault.", labels=["store"])
    for layer in policy.layers:
        age.add_metric([layer.name], layer.age_s)
        usable.add_metric([layer.name], int(layer.is_usable))
        faults.add_metric([layer.name], len(layer.faults))
    yield age
    yield usable
    yield faults
