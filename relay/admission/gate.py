"""One gate for every protocol, passed before anything is allocated for a client.

Owns who may come in: by credential and origin, and while this instance has room. Which games a credential may read is
decided with the request, in `relay.admission.subscription`.
"""

import asyncio

from auth.credentials import Presented, authorize
from auth.keys import KeyStore
from auth.tokens import Grant, TokenSigner
from relay.admission.capacity import Capacity, LinkProtocol
from relay.errors import Unavailable
from relay.live.ending import ReconnectDelays


class Admission:
    """Lets clients in, up to the capacity of this instance, until it drains."""

    def __init__(self, keys: KeyStore, signer: TokenSigner, *, capacity: Capacity, delays: ReconnectDelays) -> None:
        self._keys = keys
        self._signer = signer
        self._capacity = capacity
        self._taken = 0
        self._delays = delays
        self.links = 0
        self.draining = False
        self._empty = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the dearest link has no room: then none gets in, so that all protocols are ready, or none."""
        return self._taken + self._capacity.dearest > self._capacity.total

    @property
    def max_links(self) -> int:
        """Links that this instance takes if all are like those that are here; of the dearest, when none is here."""
        total = self._capacity.total
        return total * self.links // self._taken if self._taken else total // self._capacity.dearest

    async def emptied(self) -> None:
        """Wait until no link is left."""
        while self.links:
            self._empty.clear()
            await self._empty.wait()

    def grant(self, presented: Presented | None, *, origin: str | None) -> Grant:
        """Say what a credential allows.

        Raises:
            InvalidCredential, InvalidToken: There is none, or it is not good (any more).
            NotAllowedOrigin: It is a browser's key, and this page is not one of its origins.
        """
        return authorize(presented, self._keys, self._signer, origin=origin)

    def token(self, presented: Presented | None, *, origin: str | None) -> tuple[str, str]:
        """Make a stream token from a key; return it with the time it expires. Raises as `grant` does."""
        self.grant(presented, origin=origin)
        return self._signer.issue(self._keys.authenticate(presented.secret if presented else ""))

    def enter(self, protocol: LinkProtocol) -> None:
        """Count one link more, at what it costs; raise `Unavailable` when this instance takes none."""
        if self.draining:
            raise Unavailable("draining", self._delays.after_refusal())
        if self.full:
            raise Unavailable("capacity", self._delays.after_refusal())
        self.links += 1
        self._taken += self._capacity.costs[protocol]

    def leave(self, protocol: LinkProtocol) -> None:
        """Count one link less."""
        self.links -= 1
        self._taken -= self._capacity.costs[protocol]
        if self.links == 0:
            self._empty.set()
