"""Metrics of what each key uses, in Prometheus on request: each key is a series of each metric."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from relay.usage.account import OTHERS, Accounts
from relay.usage.usage_form import KeyUsage

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_MOST: Final = 1_000
"""Keys with series of their own: those that were used last. The others are one, so that the scrape stays bounded."""
_COUNTERS: Final = {
    "links_opened": "Links opened, by key.",
    "rounds": "Rounds written to links or answered, by key.",
    "bytes": "Bytes of these rounds, by key.",
    "requests": "Accepted requests that opened no link, by key.",
    "log_rounds": "Rounds read from the log, by key.",
    "refused": "Refused requests, by key.",
}


def usage_metrics(accounts: Accounts) -> Iterator["Metric"]:
    """Yield the metrics of all accounts."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    figures = _bounded(accounts.figures())
    links = Gauge("relay_key_links", "Open links, by key.", labels=["key"])
    for key_id, usage in figures.items():
        links.add_metric([key_id], usage.links)
    yield links
    for name, help_text in _COUNTERS.items():
        counter = Counter(f"relay_key_{name}", help_text, labels=["key"])
        for key_id, usage in figures.items():
            counter.add_metric([key_id], getattr(usage, name))
        yield counter


def _bounded(figures: Mapping[str, KeyUsage]) -> Mapping[str, KeyUsage]:
    if len(figures) <= _MOST:
        return figures
    newest_first = sorted(figures.items(), key=lambda item: -item[1].last_used)
    found = dict(newest_first[:_MOST])
    for _, usage in newest_first[_MOST:]:
        found[OTHERS] = found.get(OTHERS, KeyUsage()).beside(usage)
    return found
