"""What links of all protocols have in common: their ids and the words for their ends."""

import pytest

from relay.live.link import CloseReason
from tests.relay.live.recording_link import RecordingLink


async def test_ids_tell_links_apart() -> None:
    """In logs."""
    assert len({RecordingLink().id for _ in range(100)}) == 100


def test_reason_is_one_word_for_client_log_and_metric() -> None:
    """Lower case and underscores: it stands in JSON, in a label and in a log field alike."""
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in CloseReason)


@pytest.mark.parametrize("reason", [CloseReason.DRAINING, CloseReason.MAX_AGE, CloseReason.SLOW])
def test_reasons_of_the_contract_are_called_as_there(reason: CloseReason) -> None:
    """Clients compare them as text."""
    assert str(reason) in ("draining", "max_age", "slow")
