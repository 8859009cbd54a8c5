"""The limits of keys and addresses, in one place for all protocols.

Owns what is counted against what: a request against its key or, of a public key, against its key and address, and
against the whole key. Links are counted in `relay.admission.limits.link_limits`. Does not know credentials, which are
counted in `relay.admission.limits.wrong_credentials`, nor other relays, whose use
`relay.admission.limits.shared_use` adds. Why: docs/adr/0028-limits-are-token-buckets.md
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from auth.grants import Grant
from auth.key import Limits as KeyLimits
from relay.admission.limits.ledger import Ledger
from relay.admission.limits.link_limits import FRESH, LinkHolder, LinkLimits, LinkUse, Opening
from relay.admission.limits.meters import Rate
from relay.admission.limits.rules import RuleBook, Rules, User, account_of, network_of, user_of
from relay.admission.limits.wrong_credentials import WrongCredentials
from relay.config.sections import LimitSettings
from relay.errors import Quota, TooManyRequests, refusal_of

Parts = list[tuple[str, User, Rate]]
"""The limits that a request counts against: their names, users and rates."""


class LogMeter:
    """The limit on rounds read from the log for one user: the meter of a payer of `relay.history.reading`."""

    __slots__ = ("_ledger", "_rate", "_user")

    def __init__(self, ledger: Ledger, user: User, rate: Callable[[], Rate | None]) -> None:
        self._ledger = ledger
        self._user = user
        self._rate = rate

    def charge(self, rounds: int) -> None:
        """Count rounds that were read."""
        if (rate := self._rate()) is not None:
            self._ledger.use("log_rounds", self._user, rate, rounds)

    def delay_s(self) -> float:
        """Return in how many seconds more may be read; 0 when it may now."""
        rate = self._rate()
        return 0.0 if rate is None else self._ledger.wait_s("log_rounds", self._user, rate)

    def refusal(self, delay_s: float) -> TooManyRequests:
        """Return what a request is refused with."""
        rate = self._rate()
        quota = None if rate is None else self._ledger.quota("log_rounds", self._user, rate)
        return self._ledger.refusal("log_rounds", delay_s, quota)


class ClientLimits:
    """The limits of one relay, and what is used of them."""

    def __init__(
        self,
        settings: LimitSettings,
        *,
        own_limits: Callable[[str], KeyLimits | None] = lambda _key_id: None,
        retry_ms: Callable[[], int] = lambda: 2000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing used.

        Args:
            settings: The limits of keys that have none of their own, and of addresses.
            own_limits: Returns the limits of a key as they are now, so that a change applies at once.
            retry_ms: Draws the delay of a client that is over a limit whose end is not known.
            clock: Seconds.
        """
        self.ledger = Ledger(retry_ms=retry_ms, clock=clock)
        self.of_links = LinkLimits(self.ledger, settings)
        self.other_relays: Callable[[], int] = lambda: 0
        """Returns how many other relays share their use with this one now."""
        self.wrong = WrongCredentials(self.ledger, settings.wrong_credentials_per_min)
        self._rules = RuleBook(settings)
        self._own_limits = own_limits

    def request(self, grant: Grant, address: str) -> Quota | None:
        """Count a request; return the state of the nearest limit, None where there is none.

        Raises:
            TooManyRequests: It is over a limit, and was not counted.
        """
        parts = self.parts_of_request(grant, address)
        for part in parts:
            self.ledger.check(*part)
        return self.use(parts)

    def are_free(self, parts: Parts) -> bool:
        """Whether a request is within all its limits. Nothing is counted: neither it nor a refusal."""
        return all(self.ledger.wait_s(*part) <= 0 for part in parts)

    def use(self, parts: Parts) -> Quota | None:
        """Count a request; return what `request` does."""
        for part in parts:
            self.ledger.use(*part)
        return self._nearest(parts)

    @contextmanager
    def opening(self, grant: Grant, address: str) -> Iterator[None]:
        """Count what the block raises as `failed_opening` does."""
        try:
            yield
        except Exception as error:
            self.failed_opening(grant, address, error)
            raise

    def failed_opening(self, grant: Grant, address: str, error: Exception) -> None:
        """Count what was to open a link, and gets an error that its client caused, as a request that is answered.

        Raises:
            TooManyRequests: It is over the limit of requests, and is answered with this.
        """
        refusal = refusal_of(error)
        if refusal is not None and 400 <= refusal.status < 500 and not isinstance(error, TooManyRequests):
            self.request(grant, address)

    def requests_left(self, grant: Grant, address: str) -> Quota | None:
        """Return the state of the nearest limit of requests, None where there is none."""
        return self._nearest(self.parts_of_request(grant, address))

    def request_refusal(self, grant: Grant, address: str) -> TooManyRequests | None:
        """Return the refusal of a request, None when it is within its limits; nothing else is counted."""
        for part in self.parts_of_request(grant, address):
            if (wait_s := self.ledger.wait_s(*part)) > 0:
                return self.ledger.refusal(part[0], wait_s, self.ledger.quota(*part))
        return None

    def new_link_refusal(self, grant: Grant, address: str) -> TooManyRequests | None:
        """Return the refusal of a new link that comes too soon after others of its key; else None."""
        del address
        rate = self.rules_of(grant).new_links
        account = account_of(grant)
        if rate is None or (wait_s := self.ledger.wait_s("new_links", account, rate)) <= 0:
            return None
        return self.ledger.refusal("new_links", wait_s, self.ledger.quota("new_links", account, rate))

    def parts_of_request(self, grant: Grant, address: str) -> Parts:
        """Return the limits that a request counts against: their names, users and rates."""
        rules, account = self.rules_of(grant), account_of(grant)
        user = account if grant.kind == "private" else (account, network_of(address))
        parts: Parts = []
        if rules.requests is not None:
            parts.append(("requests", user, rules.requests))
        if rules.key_requests is not None:
            parts.append(("key_requests", account, rules.key_requests))
        return parts

    def _nearest(self, parts: Parts) -> Quota | None:
        quotas = [self.ledger.quota(*part) for part in parts]
        return quotas[0] if len(quotas) == 1 else min(quotas, key=lambda quota: quota.remaining, default=None)

    def open(self, grant: Grant, address: str, opening: Opening = FRESH) -> LinkUse:
        """Count a link until its use is closed; raise `TooManyRequests` when it is over a limit."""
        account, network = account_of(grant), network_of(address)
        holder = LinkHolder(account, user_of(grant, account, network), network, self.rules_of(grant))
        return self.of_links.open(holder, opening)

    def log_meter(self, grant: Grant, address: str) -> LogMeter:
        """Return the limit on rounds that are read from the log because of a client."""
        user = user_of(grant, account_of(grant), network_of(address))
        return LogMeter(self.ledger, user, lambda: self.rules_of(grant).log_rounds)

    def rules_of(self, grant: Grant) -> Rules:
        """Return the limits of a grant as they are now."""
        own = self._own_limits(grant.key_id)  # None: of an identity, which has those of its grant
        return self._rules.of(grant.kind, grant.limits if own is None else own)
