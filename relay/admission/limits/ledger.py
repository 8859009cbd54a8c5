"""What everybody has used of the limits that are rates, and who was refused.

Owns the meters, their names, and how a refusal looks. Does not know which limit applies to whom.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from relay.admission.limits.meters import Meters, Rate
from relay.admission.limits.rules import User
from relay.errors import Quota, TooManyRequests

_USERS: Final = 50_000
"""Users of one limit that are known at a time: 10 MB."""

_LATELY_S: Final = 2.0

NAMES: Final = (
    "requests",
    "key_requests",
    "links",
    "new_links",
    "address_links",
    "address_new_links",
    "replays",
    "log_rounds",
    "subscribes",
    "filters",
    "wrong_credentials",
)
"""The names of all limits, as metrics and logs have them."""
RESUMES: Final = {"new_links": "resumes", "address_new_links": "address_resumes"}
"""Links that resume have meters of their own."""
SHARED: Final = ("requests", "key_requests", "log_rounds", "subscribes")
"""Rates whose use by a key is counted over all relays."""


class Ledger:
    """The use of all rates on one relay."""

    def __init__(self, *, retry_ms: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing used.

        Args:
            retry_ms: Draws the delay of a client that is over a limit whose end is not known.
            clock: Seconds.
        """
        self._retry_ms = retry_ms
        self.now = clock
        """Returns the time in seconds."""
        self._meters = {name: Meters(_USERS) for name in (*NAMES, *RESUMES.values())}
        self._refuses_until = 0.0
        self.refused: Counter[str] = Counter(dict.fromkeys(NAMES, 0))
        """How often each limit refused a client, since the start of this process."""
        self.on_use: Callable[[str, str, float, Rate], None] = lambda _name, _account, _time_s, _rate: None
        """Called with what an account has used of a limit, as the time in which it is regained."""

    def wait_s(self, name: str, user: User, rate: Rate) -> float:
        """Return in how many seconds one more may be used; 0 when it may now."""
        return self._meters[name].wait_s(user, rate, self.now())

    def quota(self, name: str, user: User, rate: Rate) -> Quota:
        """Return what is free of a limit."""
        return self._meters[name].quota(user, rate, self.now())

    def use(self, name: str, user: User, rate: Rate, amount: int = 1) -> None:
        """Count what is used, also over the limit."""
        self._meters[name].use(user, rate, self.now(), amount)
        if name in SHARED and isinstance(user, str):  # not the viewers of a public key one by one: they are too many
            self.on_use(name, user, amount * rate.interval_s, rate)

    def used_elsewhere(self, name: str, account: str, time_s: float, *, most_s: float) -> None:
        """Add what an account has used on another relay, as the time in which it is regained; at most `most_s`."""
        self._meters[name].owe(account, time_s, self.now(), most_s=most_s)

    def check(self, name: str, user: User, rate: Rate | None, *, meter: str | None = None) -> None:
        """Raise `TooManyRequests` when a user is over a limit. `meter`: where it is counted, if not by its name."""
        if rate is not None and (wait_s := self.wait_s(meter or name, user, rate)) > 0:
            raise self.refusal(name, wait_s, self.quota(meter or name, user, rate))

    def refusal(self, name: str, wait_s: float, quota: Quota | None) -> TooManyRequests:
        """Count a refusal of a client that is within the limit again after `wait_s`, and return it."""
        self._note_refusal(name, wait_s)
        return TooManyRequests(name, max(1, round(wait_s * 1000)), quota)

    @property
    def refuses(self) -> bool:
        """Whether somebody was over a limit lately, and perhaps still is."""
        return self.now() < self._refuses_until

    def _note_refusal(self, name: str, wait_s: float) -> None:
        self.refused[name] += 1
        self._refuses_until = max(self._refuses_until, self.now() + max(_LATELY_S, wait_s))

    def refusal_at(self, name: str, most: int) -> TooManyRequests:
        """Count and return the refusal of a client that holds the most that it may, nobody knows for how long."""
        retry_ms = self._retry_ms()
        self._note_refusal(name, 0)
        return TooManyRequests(name, retry_ms, Quota(most, 0, -(-retry_ms // 1000)))
