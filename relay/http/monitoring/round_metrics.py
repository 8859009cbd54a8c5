"""Metrics of rounds: the log, live rounds, replays, and what is held in memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from relay.config.log_output import dropped_lines
from relay.history.history import History
from relay.links.link_registry import LinkRegistry
from relay.live.link import CloseReason

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def round_metrics(registry: LinkRegistry, history: History, head: int | None) -> Iterator["Metric"]:
    """Yield the metrics of rounds; `head`: the newest sequence of the log, None while it is not known."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    hub = history.hub
    mismatch = Gauge("relay_stream_mismatch", "1 for a setting that breaks a promise.", labels=["stream", "setting"])
    for stream, difference in registry.feed.streams.broken():
        mismatch.add_metric([stream, difference.name], 1)
    yield mismatch
    # Not the last one known while the log is away: that would look as if no round was stored.
    sequence = float("nan") if head is None else head
    yield Gauge("relay_head_sequence", "Sequence of the newest round in the log.", value=sequence)
    yield Counter("relay_rounds", "Rounds published to at least one channel.", value=hub.stats.rounds)
    yield Counter("relay_deliveries", "Rounds written to links, live.", value=hub.stats.deliveries)
    yield Counter("relay_rounds_invalid", "Entries of the log that are no rounds.", value=hub.stats.invalid)
    yield Counter(
        "relay_links_slow",
        "Links ended because their client was too slow.",
        value=registry.ender.ended[CloseReason.SLOW],
    )
    yield Counter("relay_rounds_repaired", "Rounds missed live and read from the log.", value=registry.feed.repaired)
    yield Gauge(
        "relay_live_rounds_wait",
        "1 while rounds of games that nobody watches wait for one that is watched.",
        value=registry.feed.rounds_wait,
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
