"""Which of the rows of a backfill a recovery publishes."""

import msgspec

from backends.contract import Captured, Rejected
from backends.ingest.recovery import RecoveryScope
from tests.backends.harness import make_round


def test_correction_of_an_old_round_is_published_and_an_old_round_is_not() -> None:
    """An old round has expired, or was there before the first capture; one that is corrected is in the log."""
    scope = RecoveryScope({"crash": 50}, oldest_ms=1000)

    def wants(number: int, timestamp: int, *, correction: bool = False) -> bool:
        round_ = msgspec.structs.replace(make_round(number, "crash"), timestamp=timestamp)
        return scope.wants(Captured(round_, 0, correction))

    assert wants(50, 1000)
    assert not wants(49, 1000)
    assert not wants(50, 999)
    assert wants(50, 999, correction=True)
    assert wants(1, 1, correction=True)
    assert scope.wants(Rejected("crash:1", "no JSON", b"", 0))
