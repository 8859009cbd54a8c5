"""Open links by the credential that opened them: found without a search among all links. Pure.

Owns the index by key, by stream token and by subject. Does not know what becomes of a link.
"""

from typing import Literal, NamedTuple

from auth.grants import Grant
from relay.admission.gate import Permit
from relay.links.session import Session
from relay.live.link import Link
from relay.live.members import Members


class Held:
    """One open link, with what is needed to judge its credential again."""

    __slots__ = ("_session", "asked", "is_open", "link", "permit")

    def __init__(self, link: Link, permit: Permit, *, session: Session | None, games: frozenset[str] | None) -> None:
        """Take a link, and the games that it follows.

        Args:
            link: The link.
            permit: Its permit.
            session: What it follows once it has started, where its client may change that.
            games: What it was opened for; None: all that its grant covers.
        """
        self.link = link
        self.permit = permit
        self.is_open = True
        self.asked = games
        """The games that the link was opened for; None: all that its grant covers."""
        self._session = session

    def follows(self) -> frozenset[str] | None:
        """Return the games that the link follows now; None: all that its grant covers."""
        return self.asked if self._session is None else self._session.games

    def regrant(self, grant: Grant) -> None:
        """Take what the credential allows from now on."""
        self.permit.grant = grant
        if self._session is not None:
            self._session.grant = grant


class Revocable(NamedTuple):
    """A credential, or all of one identity: what may be revoked."""

    what: Literal["key", "token", "subject"]
    value: str


class HeldLinks:
    """The open links of a process, by holder. Adding and removing cost the same however many there are."""

    def __init__(self) -> None:
        # Most tokens open one link, which is stored without a set of its own.
        self._found: dict[Revocable, Held | Members[Held]] = {}

    def add(self, held: Held) -> None:
        """Add a link."""
        for holder in _holders(held.permit.grant):
            found = self._found.get(holder)
            if found is None:
                self._found[holder] = held
                continue
            if isinstance(found, Held):
                only, self._found[holder] = found, (found := Members())
                found.add(only)
            found.add(held)

    def remove(self, held: Held) -> None:
        """Remove a link that was added. A later grant of its permit has the same holders."""
        held.is_open = False
        for holder in _holders(held.permit.grant):
            found = self._found.get(holder)
            if isinstance(found, Members):
                found.discard(held)
            if found is held or (isinstance(found, Members) and not found):
                del self._found[holder]

    def of(self, holder: Revocable) -> list[Held]:
        """Return the links of a holder, oldest first."""
        found = self._found.get(holder)
        return [] if found is None else [found] if isinstance(found, Held) else list(found)

    def count(self, holder: Revocable) -> int:
        """Return how many links a holder has."""
        found = self._found.get(holder)
        return 0 if found is None else 1 if isinstance(found, Held) else len(found)

    def __contains__(self, holder: Revocable) -> bool:
        return holder in self._found


def _holders(grant: Grant) -> list[Revocable]:
    holders = [Revocable("key", grant.key_id)]
    if grant.token_id is not None:
        holders.append(Revocable("token", grant.token_id))
    if grant.subject is not None:
        holders.append(Revocable("subject", grant.subject))
    return holders
