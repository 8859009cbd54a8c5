"""A share of connections, or of streams, that one group of clients may hold: counted, bounded, the oldest is shed.

Owns which member is shed when the share is exceeded: the oldest idle one of the address that holds the most. So an
address that holds few is not affected by one that holds many, and no address is refused as a whole: behind a load
balancer all clients have the balancer's. Used for those without a credential, on both ports. Does not know protocols.
Why: docs/adr/0017-shares-of-strangers.md
"""

from collections import defaultdict
from typing import Final, Protocol

FRESH_S: Final = 0.05
"""Time in which a new connection is not shed for another one: its request may have arrived and not been read."""


class Member(Protocol):
    """A connection or a stream of a share."""

    address: str
    """Of the client."""
    idle_since: float
    """Loop time at which it was opened, or was last active."""

    def shed(self) -> None:
        """Close it at once. It leaves the share when it is closed."""


class Share:
    """The members of one group, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.shed = 0
        """Members that were closed for others, since the start."""
        self._idle: dict[str, dict[Member, None]] = {}  # by address, oldest first
        self._sizes: defaultdict[int, dict[str, None]] = defaultdict(dict)  # addresses by their number of idle members
        self._largest = 0

    def enter(self, member: Member) -> None:
        """Count a new member as idle; when that exceeds the share, shed another one."""
        self.count += 1
        if self.count > self.most and not self.shed_one():
            self.rest(member)
            self.shed_one()
            return
        self.rest(member)

    def leave(self, member: Member) -> None:
        """Count a member no longer."""
        self.count -= 1
        self.work(member)

    def work(self, member: Member) -> None:
        """Do not shed a member now, since it is being served."""
        held = self._idle.get(member.address)
        if held is None or member not in held:
            return
        self._resize(member.address, len(held), len(held) - 1)
        del held[member]
        if not held:
            del self._idle[member.address]

    def rest(self, member: Member) -> None:
        """Count a member as idle from now on."""
        held = self._idle.setdefault(member.address, {})
        if member in held:
            del held[member]
        else:
            self._resize(member.address, len(held), len(held) + 1)
        held[member] = None

    @property
    def has_idle(self) -> bool:
        """Whether any member is idle, so that it may be shed."""
        return bool(self._idle)

    def has_room(self, now: float, *, coming: int = 0) -> bool:
        """Whether one more member may enter at loop time `now`; not while it would cost a fresh one its place.

        `coming`: members that are about to enter. While there are any, a full share takes no more.
        """
        if self.count + coming < self.most:
            return True
        if coming:
            return False
        oldest = self._oldest()
        return oldest is not None and now - oldest.idle_since >= FRESH_S

    def shed_one(self) -> bool:
        """Shed the oldest idle member of the address that holds the most; return False when none is idle."""
        oldest = self._oldest()
        if oldest is None:
            return False
        self.work(oldest)
        self.shed += 1
        oldest.shed()
        return True

    def _oldest(self) -> Member | None:
        if not self._largest:
            return None
        return next(iter(self._idle[next(iter(self._sizes[self._largest]))]))

    def _resize(self, address: str, before: int, after: int) -> None:
        """Move an address between the sizes; sizes change by one, so the largest is found without a search."""
        addresses = self._sizes[before]
        addresses.pop(address, None)
        if after:
            self._sizes[after][address] = None
        if not addresses:
            self._sizes.pop(before, None)
        if after > self._largest or (before == self._largest and not addresses):
            self._largest = after
