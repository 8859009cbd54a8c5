"""Stream tokens and subjects that are refused although their key is valid.

Owns what a revocation is, and which are in force in this process. Does not know where they are stored: a store of
`auth.stores` calls `Revocations.replace` and `Revocations.change`.
"""

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self

from auth.grants import Grant

What = Literal["token", "subject"]

KEPT_S: Final = 86_400.0
"""How long a revocation is kept by default: longer than a link that its token opened may live, and than most outages
of a store, after which a relay must still learn of it."""
_FEW: Final = 64


@dataclass(frozen=True, slots=True)
class Revocation:
    """A single stream token, or all of one subject's, is refused until a time."""

    what: What
    value: str
    """The token's ``jti``, or the subject."""
    until: float
    """Unix seconds after which it can be forgotten: what it refuses is not valid any more, and has no open link."""
    issued_before: float | None = None
    """Of a subject: tokens issued at or after this time (Unix seconds) are accepted; None: none are."""

    @classmethod
    def of_token(cls, token_id: str, *, now: float | None = None) -> Self:
        """Refuse one stream token, by its ``jti``, and end its links."""
        return cls("token", token_id, _or_now(now) + KEPT_S)

    @classmethod
    def of_subject(cls, subject: str, *, for_s: float = KEPT_S, now: float | None = None) -> Self:
        """Refuse every token of a subject for `for_s` seconds, and end its links."""
        return cls("subject", subject, _or_now(now) + for_s)

    @classmethod
    def of_issued(cls, subject: str, *, now: float | None = None) -> Self:
        """Refuse the tokens of a subject that were issued before `now`, and end their links. New ones are accepted."""
        return cls("subject", subject, _or_now(now) + KEPT_S, issued_before=_or_now(now))


Watcher = Callable[[tuple[Revocation, ...]], None]
"""Called after a change with the revocations that are new or different."""


class Revocations:
    """The revocations that are in force. Read at any time, changed by one store. Expired ones are dropped."""

    def __init__(self, revocations: Iterable[Revocation] = ()) -> None:
        self._found: dict[tuple[What, str], Revocation] = {}
        self._ends: list[tuple[float, What, str]] = []  # a heap; has entries of revocations that were replaced
        self.watchers: list[Watcher] = []
        """Functions that are called, in this order, after each change; they must not raise."""
        self.changes = 0
        """How often revocations were new or different, so far."""
        self.change(revocations)

    def refuses(self, grant: Grant, *, now: float | None = None) -> bool:
        """Whether the token for which `grant` was made is refused at `now`, in Unix seconds. Keys never are."""
        if not self._found:
            return False
        moment = _or_now(now)
        if grant.token_id is not None and self._in_force("token", grant.token_id, moment) is not None:
            return True
        if grant.subject is None:
            return False
        found = self._in_force("subject", grant.subject, moment)
        return found is not None and (
            found.issued_before is None or grant.issued_at is None or grant.issued_at < found.issued_before
        )

    def replace(self, revocations: Iterable[Revocation]) -> None:
        """Take `revocations` in place of all that were known."""
        coming = tuple(revocations)
        kept = {(revocation.what, revocation.value) for revocation in coming}
        for key in [key for key in self._found if key not in kept]:
            del self._found[key]
        self.change(coming)

    def change(self, revocations: Iterable[Revocation]) -> None:
        """Take revocations, each in place of an earlier one of the same value; one that has expired takes it back."""
        now = time.time()
        changed = list[Revocation]()
        for revocation in revocations:
            key = (revocation.what, revocation.value)
            if self._found.get(key) == revocation or (revocation.until <= now and key not in self._found):
                continue
            self._found[key] = revocation
            heapq.heappush(self._ends, (revocation.until, *key))
            changed.append(revocation)
        self._drop_expired(now)
        if changed:
            self.changes += 1
            for watcher in self.watchers:
                watcher(tuple(changed))

    def _in_force(self, what: What, value: str, now: float) -> Revocation | None:
        found = self._found.get((what, value))
        return found if found is not None and now < found.until else None

    def _drop_expired(self, now: float) -> None:
        if len(self._ends) > 2 * len(self._found) + _FEW:  # most are of revocations that were replaced
            self._ends = [(revocation.until, *key) for key, revocation in self._found.items()]
            heapq.heapify(self._ends)
        while self._ends and self._ends[0][0] <= now:
            _, what, value = heapq.heappop(self._ends)
            if self._found.get((what, value)) is not None and self._in_force(what, value, now) is None:
                del self._found[what, value]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"<Revocations of {len(self)} tokens and subjects>"


def _or_now(now: float | None) -> float:
    return time.time() if now is None else now
