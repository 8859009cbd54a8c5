"""What one key has used in this process, and the accounts of all keys.

Owns the counters. They only grow, so that metrics and reports can both read them. What links are sent is not counted
here for each link and round: see `relay.usage.tally`. Pure, except for the clock.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Final

from auth.grants import IDENTITY_PREFIX
from relay.usage.usage_form import KeyUsage

OTHERS: Final = "(others)"
"""The account of all keys that came after `_MOST` others. No key has this id."""
_MOST: Final = 10_000
"""Accounts: some 4 MB. An operator's keys are fewer; identities of an identity provider may be more, and get half."""


class Account:
    """The counters of one key."""

    __slots__ = (
        "bytes",
        "key_id",
        "last_used",
        "links",
        "links_opened",
        "links_peak",
        "log_rounds",
        "refused",
        "requests",
        "rounds",
    )

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.links = 0
        """Open now."""
        self.links_peak = 0
        """The most that were open at a time, since the peak was last reset."""
        self.links_opened = 0
        self.rounds = 0
        """Rounds written to links or answered, live and past."""
        self.bytes = 0
        """Bytes of these, as their protocol has them; without compression and TLS, and without frames of HTTP/2."""
        self.requests = 0
        """Accepted requests that opened no link."""
        self.log_rounds = 0
        """Rounds that were read from the log for this key."""
        self.refused = 0
        """Requests with this key that were refused: a game that it does not cover, a limit, a full relay."""
        self.last_used = 0.0
        """Unix seconds; 0: never."""

    def accepted(self) -> None:
        """Count a request whose credential was accepted."""
        self.requests += 1
        self.last_used = time.time()

    def opened(self) -> None:
        """Count a link."""
        self.requests -= 1  # of the request that opened it
        self.links_opened += 1
        self.links += 1
        if self.links > self.links_peak:
            self.links_peak = self.links

    def closed(self) -> None:
        """Count a link less."""
        self.links -= 1

    def sent(self, rounds: int, size: int) -> None:
        """Count rounds that were written for this key, and their bytes."""
        self.rounds += rounds
        self.bytes += size

    def figures(self) -> KeyUsage:
        """Return all figures."""
        return KeyUsage(
            links=self.links,
            links_max=self.links_peak,
            links_opened=self.links_opened,
            rounds=self.rounds,
            bytes=self.bytes,
            requests=max(0, self.requests),
            log_rounds=self.log_rounds,
            refused=self.refused,
            last_used=self.last_used,
        )


class Accounts:
    """The accounts of all keys that were used since the start of this process."""

    def __init__(self, *, most: int = _MOST) -> None:
        self.in_metrics = False
        """Whether metrics have the figures of each key."""
        self.reports_failed = 0
        """Reports to NATS that failed; the next one has what they had."""
        self.hours_lost = 0
        """Reports of past hours that were dropped, since NATS was away for longer than they can wait."""
        self._accounts: dict[str, Account] = {}
        self._most = most

    def of(self, key_id: str) -> Account:
        """Return the account of a key; that of `OTHERS` when there are too many."""
        account = self._accounts.get(key_id)
        if account is None:
            most = self._most // 2 if key_id.startswith(IDENTITY_PREFIX) else self._most
            if len(self._accounts) >= most:
                key_id = OTHERS
            account = self._accounts.setdefault(key_id, Account(key_id))
        return account

    def figures(self) -> Mapping[str, KeyUsage]:
        """Return the figures of each key."""
        return {account.key_id: account.figures() for account in self}

    def __iter__(self) -> Iterator[Account]:
        return iter(list(self._accounts.values()))

    def __len__(self) -> int:
        return len(self._accounts)
