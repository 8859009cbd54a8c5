"""How fast links end after a change of keys, by a clock of the test."""

from typing import Final

import pytest

from relay.links.revoke_pace import RevokePace

END_S: Final = 40e-6
"""What the end of a link takes."""


def played(links: int, *, others_s: float) -> tuple[float, list[float]]:
    """End links, while everything else takes `others_s` of each turn; return how long it took, and each slice."""
    now, slices, began = 0.0, list[float](), 0.0
    pace = RevokePace(links, now=now)
    for _ in range(links):
        if (pause_s := pace.pause_s(now)) is not None:
            slices.append(now - began)
            paused, now = now, now + max(pause_s, others_s)
            pace.resume(paused, now)
            began = now
        pace.count()
        now += END_S
    return now, [*slices, now - began]


@pytest.mark.parametrize("links", [1, 8, 100, 1000, 5000])
@pytest.mark.parametrize("others_s", [0.00001, 0.0003, 0.001, 0.002])
def test_links_end_well_within_a_second(links: int, others_s: float) -> None:
    """However busy the loop is; few of them at once."""
    took_s, _ = played(links, others_s=others_s)

    assert took_s < 0.75
    assert links > 8 or took_s < 0.002


@pytest.mark.parametrize("links", [100, 5000, 20_000])
@pytest.mark.parametrize("others_s", [0.00001, 0.0003, 0.001, 0.005, 0.02])
def test_turn_takes_at_most_twice_as_long(links: int, others_s: float) -> None:
    """As without it; a short turn takes half a millisecond more."""
    _, slices = played(links, others_s=others_s)

    assert max(slices) <= max(others_s, 0.001) + 2 * END_S


def test_quiet_loop_is_not_filled() -> None:
    """With few links, two thirds of the time and more are free."""
    took_s, slices = played(500, others_s=0.00001)

    assert sum(slices) < took_s / 3


def test_loop_that_stood_still_is_not_filled_for_long() -> None:
    """After a stall of a second, a slice has 20 ms."""
    pace = RevokePace(50_000, now=0.0)
    pace.resume(1.0, 2.0)
    ended, now = 0, 2.0
    while pace.pause_s(now) is None:
        pace.count()
        ended, now = ended + 1, now + END_S

    assert ended <= 0.02 / END_S + 2
