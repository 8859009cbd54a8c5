"""What a key used in an hour, as a relay reports it and as several reports are merged. Pure.

A report is what one relay process has counted since the hour began, or since it started in it. It replaces the
process's earlier report of the hour. So the figures of an hour are the sum over processes, and the next report has what
a lost one had.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

import msgspec

STREAM: Final = "USAGE"
SUBJECTS: Final = "usage.>"
_GROWING: Final = ("links_opened", "rounds", "bytes", "requests", "log_rounds", "refused")


class KeyUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The figures of one key. Zeros are left out of the JSON."""

    links: int = 0  # open when the figures were taken
    links_max: int = 0  # the most at a time; of several relays: the sum of each one's, which need not be at one time
    links_opened: int = 0
    rounds: int = 0
    bytes: int = 0
    requests: int = 0
    log_rounds: int = 0
    refused: int = 0
    last_used: float = 0.0  # Unix seconds

    def since(self, start: Self) -> Self:
        """Return what was used after `start` was taken."""
        grown = {name: getattr(self, name) - getattr(start, name) for name in _GROWING}
        return msgspec.structs.replace(self, **grown)

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to report."""
        return not self.links_max and not any(getattr(self, name) for name in _GROWING)

    def beside(self, other: Self) -> Self:
        """Add the figures of another relay in the same time."""
        return self._with(other, links=self.links + other.links, links_max=self.links_max + other.links_max)

    def then(self, later: Self) -> Self:
        """Add the figures of a later time."""
        return self._with(later, links=later.links, links_max=max(self.links_max, later.links_max))

    def _with(self, other: Self, **links: int) -> Self:
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _GROWING}
        return msgspec.structs.replace(self, **links, **sums, last_used=max(self.last_used, other.last_used))


class UsageReport(msgspec.Struct, frozen=True):
    """What one relay process has counted in one hour."""

    hour: int  # Unix seconds of its start
    relay: str
    taken_at: float  # Unix seconds
    keys: dict[str, KeyUsage]


def hour_of(moment: float) -> int:
    """Return the start of the hour of a time, both in Unix seconds."""
    return int(moment) // 3600 * 3600


def report_subject(report: UsageReport, part: int) -> str:
    """Return the subject of a part of a report: it replaces the one that it had before."""
    return f"usage.{datetime.fromtimestamp(report.hour, UTC):%Y%m%d.%H}.{report.relay}.{part}"


def stream_of(*, max_age_s: float, max_bytes: int, replicas: int) -> Mapping[str, Any]:
    """Return the configuration of the stream: the newest report of each relay and hour."""
    return {
        "name": STREAM,
        "subjects": [SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_age": round(max_age_s * 1_000_000_000),
        "max_bytes": max_bytes,
        "num_replicas": replicas,
        "allow_direct": True,
    }


def merged(reports: Iterable[UsageReport], *, now: float, fresh_s: float) -> dict[str, dict[int, KeyUsage]]:
    """Merge reports by key and hour.

    Args:
        reports: Of any relays and hours; the parts of one report may come apart.
        now: Unix seconds.
        fresh_s: Links of a report that is older are not open any more, as far as is known.
    """
    found: dict[str, dict[int, KeyUsage]] = {}
    for report in reports:
        is_fresh = now - report.taken_at <= fresh_s
        for key_id, figures in report.keys.items():
            counted = figures if is_fresh else msgspec.structs.replace(figures, links=0)
            hours = found.setdefault(key_id, {})
            hours[report.hour] = hours[report.hour].beside(counted) if report.hour in hours else counted
    return found


def total(hours: Mapping[int, KeyUsage]) -> KeyUsage:
    """Add up the hours of one key."""
    figures = KeyUsage()
    for hour in sorted(hours):
        figures = figures.then(hours[hour])
    return figures
