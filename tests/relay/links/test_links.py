"""A link's end, whatever its protocol: once, and always."""

import asyncio

import pytest

from relay.live.link import CloseReason, Disconnect
from tests.relay.live.test_hub import RecordingLink

FIRST = Disconnect(CloseReason.SLOW, "k1-7", 0)


async def test_goodbye_is_said_once() -> None:
    """The first reason stands: a drain that comes upon a slow link changes nothing."""
    link = RecordingLink()
    link.end(FIRST, linger_s=60)
    link.end(Disconnect(CloseReason.DRAINING, "k1-9", 5), linger_s=0)

    assert link.goodbyes == [FIRST]
    assert link.ended == FIRST


async def test_client_that_reads_no_goodbye_is_cut() -> None:
    """A dead client holds its buffers no longer than it may linger; not before."""
    link = RecordingLink()
    cut = asyncio.Event()
    link.recorder.abort = cut.set  # type: ignore[method-assign]
    link.end(FIRST, linger_s=0.01)
    assert not cut.is_set()

    async with asyncio.timeout(20):
        await cut.wait()


async def test_ids_tell_links_apart() -> None:
    """In logs, that is."""
    assert len({RecordingLink().id for _ in range(100)}) == 100


def test_reason_is_one_word_for_client_log_and_metric() -> None:
    """Lower case and underscores: it stands in JSON, in a label and in a log field alike."""
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in CloseReason)


@pytest.mark.parametrize("reason", [CloseReason.DRAINING, CloseReason.MAX_AGE, CloseReason.SLOW])
def test_reasons_of_the_contract_are_called_as_there(reason: CloseReason) -> None:
    """Clients compare them as text."""
    assert str(reason) in ("draining", "max_age", "slow")
