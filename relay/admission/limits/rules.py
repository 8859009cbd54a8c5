"""Which limits apply to a grant: its own, or those of the settings for its kind. Pure.

Owns who shares a limit: a private key is one user; of a public key, each client address is one, since all viewers of a
page have the same key. What an IPv6 client can choose of its address is not looked at.
"""

from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from auth.grants import Grant
from auth.key import Kind
from auth.key import Limits as KeyLimits
from relay.admission.limits.meters import Rate
from relay.config.sections import LimitSettings

_KNOWN: Final = 4096
_MOST: Final = 10**9
"""A larger number is like no limit: the claims of an identity may have any."""
RESUME_RATE: Final = 2
"""Links that resume may come this many times as fast as others, and have a rate of their own."""


User = str | tuple[str, str]
"""An account, or an account and the network of a client."""


class Rules(NamedTuple):
    """The limits of a grant; None: there is none."""

    requests: Rate | None  # of a private key, or of a public key and address
    key_requests: Rate | None  # of a public key
    links: int | None
    new_links: Rate | None
    resumes: Rate | None
    replays: int | None
    log_rounds: Rate | None
    subscribes: Rate | None
    filters: int | None


class RuleBook:
    """The rules of all grants. Remembers those that were looked up lately."""

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._of = lru_cache(_KNOWN)(self._made)

    def of(self, kind: Kind, limits: KeyLimits) -> Rules:
        return self._of(kind, limits)

    def _made(self, kind: Kind, own: KeyLimits) -> Rules:
        common, public = self._settings, kind == "public"
        requests = common.public_requests_per_min if public else common.private_requests_per_min
        of_key = own.key_requests_per_min, common.public_key_requests_per_min
        new = own.links_per_s, common.public_links_per_s if public else common.private_links_per_s
        return Rules(
            requests=_per_min(own.requests_per_min, requests),
            key_requests=_per_min(*of_key) if public else None,
            links=_count(own.links, common.public_links if public else common.private_links),
            new_links=_per_s(*new, times=1),
            resumes=_per_s(*new, times=RESUME_RATE),
            replays=_count(own.replays, common.replays),
            log_rounds=_per_min(own.log_rounds_per_min, common.log_rounds_per_min),
            subscribes=_per_min(own.subscribes_per_min, common.subscribes_per_min),
            filters=_count(own.filters, common.filters),
        )


def account_of(grant: Grant) -> str:
    """Return the name under which the use of a grant is counted: the id of its key or identity.

    Never the subject of a token of a key: who has the key chooses it.
    """
    return grant.key_id


def user_of(grant: Grant, account: str, network: str) -> User:
    """Return the user of limits that each viewer of a page has of its own."""
    return account if grant.kind == "private" else (account, network)


@lru_cache(_KNOWN)
def network_of(address: str) -> str:
    """Return what stands for a client: an address of IPv4, or the /64 that a network of IPv6 is given (RFC 6177)."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Address(int(IPv6Address(address.partition("%")[0])) >> 64 << 64))
    except AddressValueError:
        return address


def _count(own: int | None, common: int) -> int | None:
    """Return the limit of a key if it has one, or the common one; None for none."""
    return min(common if own is None else own, _MOST) or None


def _per_min(own: int | None, common: int) -> Rate | None:
    count = _count(own, common)
    return None if count is None else Rate.per_min(count)


def _per_s(own: float | None, common: float, *, times: int) -> Rate | None:
    rate = common if own is None else own
    return Rate.per_s(rate * times) if rate else None
