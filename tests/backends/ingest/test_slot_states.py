"""Each state of a replication slot is known to the readiness of ingest, and to the recovery from a lost slot.

Both know the states as words only, because they do not import a backend before it is used.
"""

from typing import Final

import pytest

from backends.backlog import BacklogWatch
from backends.ingest import ingest_metrics, recovery
from backends.postgres.replication.slot import SlotState

READY: Final = {SlotState.STREAMING, SlotState.STANDBY}
"""Rounds flow, in this process or in another."""
NEVER_LOST: Final = {*READY, SlotState.LEFT, SlotState.CONNECTING}
"""The slot has its rounds: there is nothing to recover."""
NOT_RECOVERED: Final = {SlotState.FOREIGN}
"""The slot belongs to others: an operator chooses another name."""
KEPT: Final = {SlotState.MOVED, SlotState.PUBLICATION_CHANGED}
"""The slot can be read on; only rounds are missing."""


class _Open:
    """An open backend in a state, with no rounds waiting."""

    is_open, waiting_s = True, 0.0

    def __init__(self, state: SlotState) -> None:
        self.status = self
        self.state = state


@pytest.mark.parametrize("state", SlotState)
def test_each_state_is_ready_or_named_as_an_obstacle(state: SlotState) -> None:
    """A state that is added has to be classified: readiness would count it as ready."""
    metrics = ingest_metrics.IngestMetrics(_Open(state), "postgres-replication", BacklogWatch(None))  # type: ignore[arg-type]
    expected = None if state in READY else f"source_{state}"

    assert metrics.obstacle() == ("log_stuck" if state is SlotState.LEFT else expected)


def test_readiness_names_only_states() -> None:
    """A word that no slot has, such as one that was renamed, matches nothing."""
    words = {*ingest_metrics._NOT_READY, ingest_metrics._LEFT}

    assert words == set(SlotState) - READY


def test_recovery_names_only_states_and_each_is_classified() -> None:
    """A lost slot of another state ends ingest; one that is renewed gets a new slot."""
    assert set(recovery._FILLED_IN) == set(SlotState) - NEVER_LOST - NOT_RECOVERED
    assert set(recovery._RENEWED) == set(recovery._FILLED_IN) - KEPT
