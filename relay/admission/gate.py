"""Admission of clients of all protocols, before anything is allocated for them.

Owns which clients are let in: by credential and origin, and while this instance has room. Does not know games: which of
them a credential covers is checked with the request, in `relay.admission.requested`.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from auth.credentials import NotAllowedOrigin, Presented, authorize
from auth.grants import Grant
from auth.identity.identity_rules import InvalidIdentity
from auth.key import InvalidCredential
from auth.key_ring import KeyRing
from auth.revocations import Revocations
from auth.standing import Withdrawn, standing
from auth.tokens import LIFE_S, InvalidToken, TokenSigner
from relay.admission.caller import Caller
from relay.admission.capacity import Capacity, LinkProtocol, Resource
from relay.admission.key_policy import KeyPolicy
from relay.admission.limits.limits import ClientLimits
from relay.admission.limits.link_limits import FRESH, LinkUse, Opening
from relay.admission.limits.rules import network_of
from relay.admission.strangers import Share
from relay.audit.refused_credentials import mark
from relay.config.sections import LimitSettings
from relay.errors import NotAllowed, NotAllowedAddress, TooManyRequests, Unavailable
from relay.history.reading.payer import Payer, Payers
from relay.live.ending import ReconnectDelays
from relay.usage.account import Accounts


@dataclass(slots=True, eq=False)
class Permit:
    """The right to one link, from before its handshake until after its end."""

    protocol: LinkProtocol
    grant: Grant
    """What its credential allows; replaced when the credential's key has changed."""
    caller: Caller
    use: LinkUse
    """What the link uses of the limits of its key and address."""
    judged_at: int = -1
    """The `Admission.changes` of the turn of the loop in which the credential was judged; -1: unknown."""


class Admission:
    """Admits clients, up to the capacity of this instance, until it drains."""

    def __init__(
        self,
        keys: KeyRing,
        signer: TokenSigner,
        *,
        capacity: Capacity,
        delays: ReconnectDelays,
        revocations: Revocations | None = None,
        strangers: Share | None = None,
        guests: Share | None = None,
        payers: Payers | None = None,
        policy: KeyPolicy | None = None,
        limits: ClientLimits | None = None,
    ) -> None:
        """Admit nobody yet.

        Args:
            keys: The API keys.
            signer: Makes and checks stream tokens.
            capacity: How many links fit.
            delays: Draws when refused clients may come back.
            revocations: The tokens and subjects that are refused; none by default.
            strangers: Connections without an accepted credential; None where no connections are counted.
            guests: Connections with one that are no links; None likewise.
            payers: Those who read the log, with their limits; None: they have no limits.
            policy: What accepted credentials must also fulfil; None for the defaults.
            limits: What keys and addresses may use; None for the defaults.
        """
        self.keys = keys
        self.revocations = Revocations() if revocations is None else revocations
        self._signer = signer
        self._capacity = capacity
        self._taken = 0
        self._delays = delays
        self.payers = Payers() if payers is None else payers
        """Who causes reads of the log."""
        self.policy = KeyPolicy(keys, delays) if policy is None else policy
        """What accepted credentials must also fulfil."""
        self.of_clients = ClientLimits(LimitSettings()) if limits is None else limits
        """What keys and addresses may use."""
        self.links = 0
        self.draining = False
        self.shares: Mapping[str, Share] = {
            group: share for group, share in (("strangers", strangers), ("guests", guests)) if share is not None
        }
        """The connections that are no links, by group."""
        self.accounts = Accounts()
        """What each key uses."""
        self._empty = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the most expensive link does not fit. Then none is admitted: readiness is that of all protocols."""
        return self._taken + self._capacity.dearest > self._capacity.total

    @property
    def max_links(self) -> int:
        """Links that fit if all cost as much as the open ones on average; without open links, the most expensive."""
        total = self._capacity.total
        return total * self.links // self._taken if self._taken else total // self._capacity.dearest

    @property
    def bound(self) -> Resource:
        """What bounds the number of links."""
        return self._capacity.bound

    @property
    def limits(self) -> Mapping[Resource, int]:
        """Links of the most expensive protocol that fit into each resource alone."""
        return self._capacity.limits

    async def emptied(self) -> None:
        """Wait until no link is open."""
        while self.links:
            self._empty.clear()
            await self._empty.wait()

    def grant(self, presented: Presented | None, *, origin: str | None, caller: Caller) -> Grant:
        """Return what a credential allows to `caller`.

        Raises:
            InvalidCredential, InvalidToken: There is none, or it is not valid.
            NotAllowedOrigin: It is a browser's key, and `origin` is not one of its origins.
            KeysUnavailable, NotAllowedAddress, NotAllowed: See `KeyPolicy.check`.
            TooManyRequests: It is not valid, or not from there, and one of too many from this address.
        """
        wrong, network = self.of_clients.wrong, network_of(caller.address)
        try:
            grant = authorize(presented, self.keys, self._signer, origin=origin, revocations=self.revocations)
            self.policy.check(grant, caller)
        except Exception as error:
            mark(error, presented, self.keys)
            if presented is not None and isinstance(error, InvalidCredential | InvalidToken):
                self.policy.check_judged(None)
                wrong.add(network)
            elif isinstance(error, NotAllowedOrigin | NotAllowedAddress):  # it is not the holder of the key who pays
                wrong.add(network)
            raise
        self.accounts.of(grant.key_id).accepted()
        return grant

    @contextmanager
    def identifying(self, caller: Caller) -> Iterator[None]:
        """Count an identity that the block refuses as a wrong credential of `caller`.

        Raises:
            TooManyRequests: It is one of too many from this address.
        """
        wrong, network = self.of_clients.wrong, network_of(caller.address)
        try:
            yield
        except (InvalidIdentity, NotAllowed):
            wrong.add(network)
            raise

    def standing(self, permit: Permit, follows: frozenset[str] | None) -> Grant | Withdrawn:
        """Return what the credential of a link that `follows` games allows now; see `auth.standing`."""
        key, address = self.keys.get(permit.grant.key_id), permit.caller.address
        return standing(permit.grant, key, self.revocations, address=address, follows=follows, now=time.time())

    def still(self, grant: Grant, caller: Caller) -> Grant:
        """Return what a credential allows now that was accepted with the head of a request, whose body came later.

        Raises:
            InvalidCredential: It was taken back since.
        """
        key = self.keys.get(grant.key_id)
        now = time.time()
        found = standing(grant, key, self.revocations, address=caller.address, follows=frozenset(), now=now)
        if isinstance(found, Withdrawn):
            raise InvalidCredential("the API key was taken back before the request was complete")
        return found

    def token(
        self, grant: Grant, *, games: frozenset[str] | None = None, subject: str | None = None, life_s: int = LIFE_S
    ) -> tuple[str, str]:
        """Make a stream token for what `grant` covers, or for those `games` of it; return it with its time of expiry.

        Raises:
            InvalidCredential: Its key has been removed.
            InvalidToken: Its subject was revoked: a JWT of the identity provider may be older than that.
            TokenTooLong: See `TokenSigner.issue`.
        """
        if self.revocations.refuses(grant):
            raise InvalidToken("access of this subject was revoked")
        if grant.is_identity:
            return self._signer.issue_for(grant.within(games), life_s=life_s)
        key = self.keys.get(grant.key_id)
        if key is None:
            raise InvalidCredential("the API key is unknown; check that it is complete and still in use")
        return self._signer.issue(key, games=games, secret_id=grant.secret_id, subject=subject, life_s=life_s)

    def public_keys(self) -> list[dict[str, Any]]:
        """Return the public keys that verify stream tokens, as JWKs."""
        return self._signer.keys.public()

    def payer(self, grant: Grant, caller: Caller) -> Payer:
        """Return who is charged for what the log is read for a client; hold it for as long as the client reads."""
        return self.payers.of(grant, caller.address)

    def quick_refusal(self, request: str, secret: str, address: str) -> TooManyRequests | None:
        """Return the refusal of a request whose key is over a limit, or is one wrong key too many from `address`.

        None: it is to be handled as usual. What is returned is counted as refused, and as no request.

        Args:
            request: Its method and path.
            secret: The key.
            address: Of the client.
        """
        limits, network = self.of_clients, network_of(address)
        if request.startswith(("GET /api/grpc/", "POST /api/grpc/", "OPTIONS ")):  # errors have another form there
            return None
        try:
            grant = Grant.of(self.keys.authenticate(secret))
        except InvalidCredential:
            return limits.wrong.refusal(network) if limits.wrong.wait_s(network) > 0 else None
        if request.startswith("GET /ws"):
            return limits.new_link_refusal(grant, address)
        is_request = request == "POST /api/auth/token" or request.startswith("GET /api/")
        return limits.request_refusal(grant, address) if is_request else None

    @property
    def changes(self) -> int:
        """How often what is known of keys and revocations has changed; the clock is not counted."""
        return self.keys.changes + self.revocations.changes

    def enter(self, protocol: LinkProtocol, grant: Grant, caller: Caller, opening: Opening = FRESH) -> Permit:
        """Count one more link at its cost.

        Raises:
            Unavailable: This instance takes none.
            TooManyRequests: Its key or address may open none now.
        """
        if self.draining:
            raise self.refusal("draining")
        if self.full:
            raise self.refusal("capacity")
        use = self.of_clients.open(grant, caller.address, opening)
        self.links += 1
        self._taken += self._capacity.costs[protocol]
        return Permit(protocol, grant, caller, use)

    def refusal(self, reason: str) -> Unavailable:
        """Make the refusal of a client, with its own delay."""
        return Unavailable(reason, self._delays.after_refusal())

    def leave(self, permit: Permit) -> None:
        """Count one link less; `enter` returned its permit."""
        permit.use.close()
        self.links -= 1
        self._taken -= self._capacity.costs[permit.protocol]
        if self.links == 0:
            self._empty.set()
