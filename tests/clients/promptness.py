"""Whether somebody was kept waiting, told on a machine that keeps everybody waiting now and then.

A delay of ours comes with every round, and so moves the quick ones as well as the slow; what else the machine does
moves the slow ones only. So the quick half is compared with what it was a moment before, without those who might delay.
"""

from collections.abc import Sequence
from typing import Final

ATTEMPTS: Final = 3
"""A machine that is busy throughout one attempt is not through all; a delay of ours is."""

_ALLOWED: Final = ((0.25, 0.02), (0.5, 0.05))
"""Shares of the rounds, quickest first, and by how many seconds the slowest of them may be slower than twice before."""


def is_prompt(delays_s: Sequence[float], before_s: Sequence[float]) -> bool:
    """Whether rounds came about as fast as those before."""
    return all(_quantile(delays_s, share) <= 2 * _quantile(before_s, share) + slack_s for share, slack_s in _ALLOWED)


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]
