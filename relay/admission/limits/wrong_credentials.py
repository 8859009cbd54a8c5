"""Wrong credentials of one client address: after too many of them, they are refused cheaply.

Owns that nobody else is refused. Behind a balancer all clients may have one address, so an address is never refused as
a whole. A key is looked up, in a microsecond, and a token or an identity verified, in 10 to 100, which is less than the
rest of its request takes: valid ones are accepted at any time.
"""

from typing import Final

from relay.admission.limits.ledger import Ledger
from relay.admission.limits.meters import Rate
from relay.errors import TooManyRequests

_NAME: Final = "wrong_credentials"


class WrongCredentials:
    """Counts wrong credentials by client address."""

    def __init__(self, ledger: Ledger, per_min: int) -> None:
        """`per_min`: how many an address may send in a minute; 0 for any number."""
        self._ledger = ledger
        self._rate = Rate.per_min(per_min) if per_min else None

    def wait_s(self, network: str) -> float:
        """Return for how long wrong credentials of an address are refused cheaply; 0 when they are not."""
        return 0.0 if self._rate is None else self._ledger.wait_s(_NAME, network, self._rate)

    def add(self, network: str) -> None:
        """Count a wrong credential; raise `TooManyRequests` when it is one too many."""
        if self._rate is None:
            return
        if self.wait_s(network) > 0:
            raise self.refusal(network)
        self._ledger.use(_NAME, network, self._rate)

    def refusal(self, network: str) -> TooManyRequests:
        """Count and return the refusal of one wrong credential too many. Its connection is to be closed."""
        refusal = self._ledger.refusal(_NAME, self.wait_s(network), None)
        refusal.closes = True
        return refusal
