"""When links are ended in a drain: evenly, and also when the process stood still meanwhile. No time passes here."""

from typing import Final

import pytest

from relay.links.drain_schedule import DrainSchedule

LINKS: Final = 100
STARTED: Final = 5000.0
SPREAD_S, LEAST_S = 8.0, 1.0


def ends(*, stall_after: int | None = None, stalled_s: float = 0.0, busy_s: float = 0.0) -> list[float]:
    """Return when each link is ended, in seconds from the start.

    The process stands still once, after `stall_after` ends, and each end takes `busy_s`.
    """
    schedule = DrainSchedule(LINKS, started=STARTED, spread_s=SPREAD_S, least_s=LEAST_S)
    now, ended = STARTED, []
    for number in range(LINKS):
        if number == stall_after:
            now += stalled_s
        now += max(0.0, schedule.wait_s(now))
        ended.append(now - STARTED)
        now += busy_s
    assert schedule.stalled == (stalled_s > 1)
    return ended


def test_ends_are_spread_evenly() -> None:
    """The first link is ended at once."""
    assert ends() == pytest.approx([SPREAD_S * number / LINKS for number in range(LINKS)])


def test_short_delays_are_made_up_for() -> None:
    """A busy loop does not prolong the drain."""
    assert ends(busy_s=0.05)[-1] == pytest.approx(SPREAD_S, abs=0.2)
    assert ends(stall_after=50, stalled_s=0.9)[-1] == pytest.approx(SPREAD_S, abs=0.2)


@pytest.mark.parametrize("stalled_s", [2.0, 3.9, 4.1, 60.0])
def test_links_that_were_due_during_a_stall_do_not_end_together(stalled_s: float) -> None:
    """The rest is spread over the time that remains, or over a second when none does."""
    ended = ends(stall_after=50, stalled_s=stalled_s)

    woke = ended[50]
    assert woke == pytest.approx(SPREAD_S * 49 / LINKS + stalled_s)
    rest_s = max(SPREAD_S - woke, LEAST_S)
    assert ended[50:] == pytest.approx([woke + rest_s * number / 50 for number in range(50)])


def test_empty_drain_has_a_schedule() -> None:
    """A relay without links."""
    assert not DrainSchedule(0, started=STARTED, spread_s=SPREAD_S, least_s=LEAST_S).stalled
