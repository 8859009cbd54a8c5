"""Tell delays of the relay from those of a busy machine.

A delay of the relay affects every round, fast and slow ones; other work of the machine affects only the slow ones. So
the fast half is compared with that of a moment before, without the clients that might cause a delay.
"""

from collections.abc import Sequence
from typing import Final

ATTEMPTS: Final = 3
"""A machine that is busy during one attempt is not during all; a delay of ours is in every attempt."""

_ALLOWED: Final = ((0.25, 0.02), (0.5, 0.05))
"""Shares of the rounds, fastest first; the seconds by which the slowest of a share may exceed twice its time before."""


def is_prompt(delays_s: Sequence[float], before_s: Sequence[float]) -> bool:
    """Whether rounds arrived about as fast as those before."""
    return all(_quantile(delays_s, share) <= 2 * _quantile(before_s, share) + slack_s for share, slack_s in _ALLOWED)


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]
