"""What was written to the links of one channel, split by account without work for each link and round.

The hub writes the same bytes to all links of a channel. So a write is counted once for the channel; an account gets its
part, multiplied by its links in the channel, when one of them comes or leaves and when the figures are read. Pure.
"""

from relay.usage.account import Account


class _Member:
    """The links of one account in a channel, and what the channel had counted when they last got their part."""

    __slots__ = ("bytes", "links", "rounds")

    def __init__(self) -> None:
        self.links = 0
        self.rounds = 0
        self.bytes = 0


class Tally:
    """The counters of one channel."""

    __slots__ = ("_members", "bytes", "rounds")

    def __init__(self) -> None:
        self.rounds = 0
        """Rounds written to each link of the channel since it was made. The hub adds to it."""
        self.bytes = 0
        """Their bytes."""
        self._members: dict[Account, _Member] = {}

    def join(self, account: Account | None) -> None:
        """Note that a link has joined the channel; None: its use is not counted."""
        if account is None:
            return
        member = self._members.get(account)
        if member is None:
            member = self._members[account] = _Member()
        self._settle(account, member)
        member.links += 1

    def leave(self, account: Account | None) -> None:
        """Note that a link has left the channel."""
        if account is None:
            return
        member = self._members[account]
        self._settle(account, member)
        member.links -= 1
        if not member.links:
            del self._members[account]

    def settle(self) -> int:
        """Give each account its part of what was written until now; return the number of accounts."""
        for account, member in self._members.items():
            self._settle(account, member)
        return len(self._members)

    def _settle(self, account: Account, member: _Member) -> None:
        account.sent(
            member.links * (self.rounds - member.rounds),
            member.links * (self.bytes - member.bytes),
        )
        member.rounds, member.bytes = self.rounds, self.bytes
