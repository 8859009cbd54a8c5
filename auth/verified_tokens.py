"""Tokens that were verified, so that a token that comes again costs one look-up. Pure.

Owns how many are remembered and when they are forgotten. What a token says never changes. Whether it may be used does:
that is judged each time, by times, keys and revocations as they are then. A token is found by all of its text, by a
hash that is different in each process, so the time of a look-up reveals nothing of other tokens.
"""

from typing import Final, NamedTuple

from auth.grants import Grant

_MOST: Final = 4096
"""Some 4 MB. A relay that accepts more in the life of a token verifies the oldest again."""


class VerifiedToken(NamedTuple):
    """What a token says. Times are Unix seconds."""

    grant: Grant
    issued_at: int
    not_before: int
    expires_at: int


class VerifiedTokens:
    """Tokens whose signature and claims were checked with the keys in force."""

    __slots__ = ("_found", "_most")

    def __init__(self, most: int = _MOST) -> None:
        self._found: dict[str, VerifiedToken] = {}  # in the order in which they came
        self._most = most

    def __len__(self) -> int:
        return len(self._found)

    def get(self, token: str) -> VerifiedToken | None:
        """Return what a token says; None when it is not known."""
        return self._found.get(token)

    def add(self, token: str, verified: VerifiedToken, now: float) -> None:
        """Remember a token; forget the oldest ones that have expired, or one where there are too many."""
        found = self._found
        while found:
            oldest = next(iter(found))
            if len(found) < self._most and found[oldest].expires_at > now:
                break
            del found[oldest]
        found[token] = verified

    def clear(self) -> None:
        """Forget all: other keys are in force."""
        self._found.clear()
