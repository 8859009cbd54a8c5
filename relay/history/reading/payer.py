"""Who causes reads of the log: each read takes its turn among all payers, and its payer is charged for what it read.

Owns the identity of payers, what they were charged, and where a limit is asked. A private key is one payer; a public
key is one payer for each client address, and a key whose tokens name a subject is one for each subject. All payers of a
key share its turns. Who causes a read pays for it; readers that find the page in memory, or wait for the same page, pay
nothing.

A limit is a `Meter`, of which this module knows no implementation. `Payers` asks for one when a payer is made:
`meter_of(grant, address)`, where `address` is empty for a private key. A meter may be shared by several payers, and
outlives them where it must: payers are forgotten when no request or link uses them. A meter never waits by itself.
Knows nothing of how turns are scheduled (`relay.history.reading.fair_queue`). Why: docs/adr/0029-turns-by-key.md
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Protocol
from weakref import WeakValueDictionary

from auth.grants import Grant

_MOST_WAIT_S: Final = 60.0
"""How long a replay over its limit waits for one page at most. Then it reads one, so that it always advances."""
_STEP_S: Final = 5.0
"""How long it waits before it asks again: the limit of an open link may have been raised meanwhile."""
_MOST_KEYS: Final = 10_000
"""Keys whose reads are counted one by one. Those that come later are counted together."""
OTHERS: Final = ""
"""The name under which keys are counted that come when `_MOST_KEYS` are known, and the relay itself."""


class Meter(Protocol):
    """A limit on the rounds that are read from the log. Pure and quick: it is asked before each read."""

    def charge(self, rounds: int) -> None:
        """Count rounds that were read. It is called after the read, so a meter may have to count more than is free."""

    def delay_s(self) -> float:
        """Return in how many seconds more may be read; 0 when it may now."""

    def refusal(self, delay_s: float) -> Exception:
        """Return what a request is refused with that would have to wait `delay_s`."""


class Unlimited:
    """The meter of payers without a limit."""

    def charge(self, rounds: int) -> None:
        """Count nothing."""

    def delay_s(self) -> float:
        return 0.0

    def refusal(self, delay_s: float) -> Exception:
        raise AssertionError(f"there is no limit to wait for {delay_s:g} s")


UNLIMITED: Final = Unlimited()


class Payer:
    """Who causes reads. Compared by identity: `Payers` has one for each key, or client of a key, that is in use."""

    __slots__ = ("__weakref__", "_meter", "_reads", "address", "key_id", "weight")

    def __init__(
        self,
        key_id: str,
        address: str = "",
        *,
        weight: float = 1.0,
        meter: Meter = UNLIMITED,
        reads: "Counter[str] | None" = None,
    ) -> None:
        """Make a payer that has read nothing.

        Args:
            key_id: Its key; empty for the relay itself.
            address: The client's address, or its subject, where each has turns of its own within the key; else empty.
            weight: How many turns its key gets where others get one.
            meter: Its limit.
            reads: Where the rounds are added that it reads, under its key.
        """
        self.key_id = key_id
        self.address = address
        self.weight = weight
        self._meter = meter
        self._reads = Counter[str]() if reads is None else reads

    def __repr__(self) -> str:
        return f"Payer({self.key_id!r}, {self.address!r})"

    def charge(self, rounds: int) -> None:
        """Charge it for rounds that were read from the log because of it."""
        if rounds:
            known = self.key_id in self._reads or len(self._reads) < _MOST_KEYS
            self._reads[self.key_id if known else OTHERS] += rounds
            self._meter.charge(rounds)

    @property
    def may_read(self) -> bool:
        """Whether it is within its limit."""
        return self._meter.delay_s() <= 0

    def check(self) -> None:
        """Raise the refusal of its meter when it is over its limit: for a request, which is not to wait."""
        delay_s = self._meter.delay_s()
        if delay_s > 0:
            raise self._meter.refusal(delay_s)

    async def until_it_may_read(self) -> None:
        """Wait while it is over its limit, but not for ever: for a replay, before its next page."""
        waited_s = 0.0
        while waited_s < _MOST_WAIT_S and (delay_s := self._meter.delay_s()) > 0:
            step_s = min(delay_s, _STEP_S, _MOST_WAIT_S - waited_s)
            await asyncio.sleep(step_s)
            waited_s += step_s


RELAY: Final = Payer("", weight=1e6)
"""The relay itself, for reads that serve all clients: with this weight it practically waits behind no client."""


class Payers:
    """The payers that are in use, and what each key has read since the start of this process. One per process."""

    def __init__(self, meter_of: Callable[[Grant, str], Meter] = lambda _grant, _address: UNLIMITED) -> None:
        """`meter_of` returns the limit of a grant and, for a public key, of the address."""
        self._meter_of = meter_of
        self._in_use: WeakValueDictionary[tuple[str, str], Payer] = WeakValueDictionary()
        self._reads: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._in_use)

    def of(self, grant: Grant, address: str) -> Payer:
        """Return the payer for a client at `address` with a grant."""
        address = address if grant.kind == "public" else ""
        client = address if grant.subject is None else f"{grant.subject} {address}"
        payer = self._in_use.get((grant.key_id, client))
        if payer is None:
            payer = Payer(grant.key_id, client, meter=self._meter_of(grant, address), reads=self._reads)
            self._in_use[grant.key_id, client] = payer
        return payer

    def reads(self) -> Iterator[tuple[str, int]]:
        """Yield each key that has caused reads of the log, and how many rounds were read because of it.

        `OTHERS` stands for keys that came when 10,000 were known.
        """
        yield from list(self._reads.items())
