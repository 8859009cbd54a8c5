"""Limits of links: open ones and new ones, their replays, filters and messages.

Owns what is counted while a link is open. Nothing here is done per round. A link that resumes comes from a client that
was disconnected, perhaps because a relay asked for it; such links have a rate of their own, twice as high, so that no
storm of other links keeps them out. Why: docs/adr/0028-limits-are-token-buckets.md
"""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple, TypeVar

from relay.admission.limits.ledger import RESUMES, Ledger
from relay.admission.limits.meters import Rate
from relay.admission.limits.rules import RESUME_RATE, Rules, User
from relay.config.sections import LimitSettings
from relay.errors import Quota
from rounds import Filter

_RESUME_SHARE: Final = 1.1
"""A link that resumes is also opened when a key's links are at their limit: another relay may not have counted the end
of the link that it continues."""
_OF_FREE: Final = 9
"""Of the links of a public key, an address may hold this many times what is free. A tenth is for other addresses."""
_NO_FILTER: Final = Filter()
K = TypeVar("K", bound=Hashable)


class Opening(NamedTuple):
    """What a link is opened for."""

    resumes: bool = False
    """Whether it continues from a cursor, as after a disconnect."""
    filter: Filter = _NO_FILTER
    reads_log: Callable[[], bool] | None = None
    """Says whether it begins with a replay that needs the log; None: it does not."""


FRESH: Final = Opening()


class LinkHolder(NamedTuple):
    """Who opens a link."""

    account: str
    user: User
    network: str
    rules: Rules


class LinkUse:
    """What one link uses of the limits, from its permit to its end."""

    __slots__ = ("_limits", "_replays", "filter", "holder", "quota")

    def __init__(self, limits: "LinkLimits", holder: LinkHolder, filter_: Filter, quota: Quota | None) -> None:
        self._limits = limits
        self._replays = 0
        self.holder = holder
        self.filter = filter_
        self.quota = quota
        """Of the nearest limit when the link was opened; None where there is none."""

    def subscribe(self) -> None:
        """Count a message that changes the subscription; raise `TooManyRequests` when there were too many."""
        user, rate = self.holder.user, self.holder.rules.subscribes
        self._limits.ledger.check("subscribes", user, rate)
        if rate is not None:
            self._limits.ledger.use("subscribes", user, rate)

    def begin_replay(self) -> None:
        """Count a replay that reads the log, up to its `end_replay`."""
        self._limits.replays[self.holder.user] += 1
        self._replays += 1

    def check_replays(self) -> None:
        """Raise `TooManyRequests` when no other replay may begin."""
        self._limits.check_replays(self.holder)

    def end_replay(self) -> None:
        """Count one replay less."""
        if self._replays:
            self._replays -= 1
            decrease(self._limits.replays, self.holder.user)

    def close(self) -> None:
        """Give back all that the link holds."""
        while self._replays:
            self.end_replay()
        self._limits.close(self)


class LinkLimits:
    """The open links of this relay, as the limits see them."""

    def __init__(self, ledger: Ledger, settings: LimitSettings) -> None:
        self.ledger = ledger
        self._address_links = settings.address_links or None
        per_s = settings.address_links_per_s
        self._of_address = Rate.per_s(per_s) if per_s else None
        self._of_address_resuming = Rate.per_s(per_s * RESUME_RATE) if per_s else None
        self.links: Counter[str] = Counter()
        """Open links here, by account."""
        self.replays: Counter[User] = Counter()
        """Replays that read the log, here."""
        self.elsewhere: Callable[[str], int] = lambda _account: 0
        """Returns how many links an account has on other relays."""
        self.on_change: Callable[[str], None] = lambda _account: None
        """Called when the number of open links of an account has changed."""
        self._by_network: Counter[str] = Counter()
        self._by_viewer: Counter[User] = Counter()
        self._filters: dict[str, Counter[Filter]] = {}

    def open(self, holder: LinkHolder, opening: Opening) -> LinkUse:
        """Count a link until its use is closed.

        Raises:
            TooManyRequests: It is over a limit, and was not counted.
        """
        account, user, network, rules = holder
        nearest: list[Quota] = []
        if rules.links is not None:
            count = self.links[account] + self.elsewhere(account)
            nearest.append(self._open_quota("links", rules.links, count, opening))
        if self._address_links is not None:
            count = self._by_network[network]
            nearest.append(self._open_quota("address_links", self._address_links, count, opening))
        self._check_share(holder)
        rates = []
        for name, who, rate in (
            ("new_links", account, rules.resumes if opening.resumes else rules.new_links),
            ("address_new_links", network, self._of_address_resuming if opening.resumes else self._of_address),
        ):
            if rate is not None:
                meter = RESUMES[name] if opening.resumes else name
                self.ledger.check(name, who, rate, meter=meter)
                rates.append((meter, who, rate))
        self._check_filters(holder, opening)
        if opening.reads_log is not None and self._is_at_most_replays(holder) and opening.reads_log():
            self.check_replays(holder)
        for meter, who, rate in rates:
            self.ledger.use(meter, who, rate)
            nearest.append(self.ledger.quota(meter, who, rate))
        self.links[account] += 1
        self._by_network[network] += 1
        if user != account:
            self._by_viewer[user] += 1
        if not opening.filter.is_empty:
            self._filters.setdefault(account, Counter())[opening.filter] += 1
        self.on_change(account)
        return LinkUse(self, holder, opening.filter, min(nearest, key=_remaining) if nearest else None)

    def close(self, use: LinkUse) -> None:
        """Count a link no longer."""
        account, user, network, _ = use.holder
        decrease(self.links, account)
        decrease(self._by_network, network)
        if user != account:
            decrease(self._by_viewer, user)
        if not use.filter.is_empty:
            decrease(self._filters[account], use.filter)
            if not self._filters[account]:
                del self._filters[account]
        self.on_change(account)

    def check_replays(self, holder: LinkHolder) -> None:
        """Raise `TooManyRequests` when a user may begin no other replay that reads the log."""
        if self._is_at_most_replays(holder):
            raise self.ledger.refusal_at("replays", holder.rules.replays or 0)

    def _is_at_most_replays(self, holder: LinkHolder) -> bool:
        most = holder.rules.replays
        return most is not None and self.replays[holder.user] >= most

    def _check_filters(self, holder: LinkHolder, opening: Opening) -> None:
        most = holder.rules.filters
        if most is None or opening.filter.is_empty:
            return
        known = self._filters.get(holder.account)
        if known is not None and opening.filter not in known and len(known) >= most:
            raise self.ledger.refusal_at("filters", most)

    def _check_share(self, holder: LinkHolder) -> None:
        """Keep links of a public key for others than the address that holds the most."""
        account, user, _, rules = holder
        if rules.links is None or user == account:
            return
        held, free = self._by_viewer[user], rules.links - self.links[account] - self.elsewhere(account)
        if held and held >= _OF_FREE * free:
            raise self.ledger.refusal_at("links", rules.links)

    def _open_quota(self, name: str, most: int, count: int, opening: Opening) -> Quota:
        if count >= (most * _RESUME_SHARE if opening.resumes else most):
            raise self.ledger.refusal_at(name, most)
        return Quota(most, max(0, most - count - 1), 0)


def _remaining(quota: Quota) -> int:
    return quota.remaining


def decrease(counts: Counter[K], name: K) -> None:
    """Count one less, and keep no name whose count is 0."""
    counts[name] -= 1
    if counts[name] <= 0:
        counts.pop(name)  # in C; a Counter deletes in Python
