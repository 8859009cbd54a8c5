"""Which settings of a stream carry a promise, and how a stream differs from what is needed.

Pure: compares configurations as the JetStream API writes them. Knows nothing of connections. A difference either breaks
a promise, or makes the log shorter, longer or less replicated, which is up to the operator.
Why each one: docs/adr/0022-stream-settings-that-carry-promises.md
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from roundlog.log_errors import Difference

NANO: Final = 1_000_000_000
"""Nanoseconds of a second: durations in a stream's configuration are in nanoseconds."""

_DURATIONS: Final = ("max_age", "duplicate_window")

HARMLESS: Final = frozenset({"max_age", "max_bytes", "max_msgs", "duplicate_window", "num_replicas"})
"""Clients receive a gap where rounds expired earlier, and publishers look up ids in the log themselves."""

UNWANTED: Final[Mapping[str, object]] = {
    "no_ack": False,  # on: no publish is ever acknowledged
    "sealed": False,  # on: the stream accepts nothing
    "mirror": None,  # set: the stream accepts no publishes
    "sources": None,  # set: adds messages whose repeats and order no publisher has checked
    "subject_transform": None,  # set: stores a round under another game
    "discard_new_per_subject": False,  # on: refuses rounds of a game
    "allow_msg_counter": False,  # on: accepts numbers only
    "subject_delete_marker_ttl": 0,  # set: stores messages that are not rounds
    "persist_mode": "default",  # "async": acks before anything is written
}
"""Settings that break a promise of every stream when they are set; their unset values, which servers leave out."""

_LOSING: Final = frozenset({"retention", "subject_transform", "persist_mode"})


class Differences(NamedTuple):
    """How a stream differs from what is needed."""

    broken: tuple[Difference, ...] = ()
    """Those that break a promise."""
    harmless: tuple[Difference, ...] = ()

    @property
    def losing(self) -> tuple[Difference, ...]:
        """Those of `broken` with which a round that is stored now would be lost, or stored under another game."""
        return tuple(difference for difference in self.broken if difference.name in _LOSING)


NO_DIFFERENCES: Final = Differences()


def compare(found: Mapping[str, Any], wanted: Mapping[str, Any], *, harmless: frozenset[str] = HARMLESS) -> Differences:
    """Compare the configuration of a stream with the settings in `wanted`; `harmless` names those that promise nothing.

    Settings that `wanted` does not name belong to the operator, except those of `UNWANTED`.
    """
    broken: list[Difference] = []
    other: list[Difference] = []
    for name, value in wanted.items():
        actual = found.get(name)
        if actual == value:
            continue
        difference = Difference(name, actual, value)
        if name in _DURATIONS:
            difference = Difference(f"{name}_s", (actual or 0) / NANO, value / NANO)
        (other if name in harmless or _is_idle(name, found) else broken).append(difference)
    for name, unset in UNWANTED.items():
        actual = found.get(name) or unset
        if actual != unset:
            broken.append(Difference(name, actual, unset))
    return Differences(tuple(broken), tuple(other))


def _is_idle(name: str, found: Mapping[str, Any]) -> bool:
    """Whether a setting has no effect: what is discarded at a limit matters only where there is a limit."""
    return name == "discard" and all(found.get(limit, -1) <= 0 for limit in ("max_bytes", "max_msgs"))
