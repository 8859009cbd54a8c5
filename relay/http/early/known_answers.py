"""Answer a request that comes again, byte for byte, with the answer that it had, while that is still the answer.

Programs poll: the same bytes come many times between two rounds. Owns when an answer is still true: the log, the keys
and the revocations are as they were, and the key has not expired. Limits, and what a key uses, are counted each time.
Only for connections on which a request has shown a credential before. Does not decide anything: see
`relay.http.early.early_answers`.
"""

import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from auth.grants import Grant
from relay.admission.caller import Caller
from relay.errors import KeysUnavailable
from relay.http.connections.guarded import GuardedHandler
from relay.http.connections.quick_refusals import QuickAnswer
from relay.http.early.answer import Answer, Head
from relay.http.early.asked import Asked
from relay.links.link_registry import LinkRegistry

if TYPE_CHECKING:
    from relay.live.hub import Generation

_MOST: Final = 1024
_MOST_BYTES: Final = 4 << 20
"""Of requests and answers together."""
_LONGEST: Final = 1 << 10
"""The longest request that is remembered."""


class _Known(NamedTuple):
    grant: Grant
    caller: Caller
    until: float  # Unix seconds: the key, or one of its secrets, expires then
    rounds: int | None  # see `Answer`
    head: Head
    body: bytes


class KnownAnswers:
    """The answers since the last change of what they depend on."""

    def __init__(self, registry: LinkRegistry) -> None:
        self._registry = registry
        self._admission = registry.admission
        self._found: dict[tuple[bytes, str], _Known] = {}  # by the request, and the address of its connection
        self._bytes = 0
        self._moment: tuple[Generation, int, int] | None = None

    def __len__(self) -> int:
        return len(self._found)

    def answer(self, data: bytes, connection: GuardedHandler) -> QuickAnswer | None:
        """Return the answer to a request that is all of `data`; None when it has to be decided."""
        known = self._found.get((data, connection.peer))
        if known is None or not connection.is_guest or connection.is_last:
            return None
        registry, admission, grant = self._registry, self._admission, known.grant
        if admission.draining or not (registry.feed.is_following and registry.feed.connected):
            return None
        registry.feed.listen_now()  # as any request: the feed stays, and rounds that wait are read
        registry.feed.unlisten()
        if self._has_changed() or time.time() >= known.until:
            return None
        try:
            admission.policy.check_judged(grant.key_id)
        except KeysUnavailable:  # the usual way refuses it
            return None
        limits = admission.of_clients
        parts = limits.parts_of_request(grant, known.caller.address)
        if not limits.are_free(parts):  # the usual way refuses it, and counts that
            return None
        quota = limits.use(parts)
        account = admission.accounts.of(grant.key_id)
        account.accepted()
        if known.rounds is not None:
            account.sent(known.rounds, len(known.body))
        connection.came_for(known.caller.address)
        return QuickAnswer(known.head.at(quota) + known.body, closes=False)

    def add(self, data: bytes, asked: Asked, answer: Answer, head: Head, peer: str, *, asked_at: float) -> None:
        """Remember an answer that was just decided, if it is one of those that stay true.

        Args:
            data: The request.
            asked: What was decided about it.
            answer: The answer.
            head: Its head, with which the connection stays open.
            peer: The address of its connection.
            asked_at: Unix seconds at which deciding began: its key may have expired since.
        """
        grant = asked.grant
        if grant is None or answer.status not in (200, 304) or asked.has_private_key or len(data) > _LONGEST:
            return
        key = self._admission.keys.get(grant.key_id)
        if key is None:  # an identity of another issuer
            return
        self._has_changed()
        size = len(data) + len(answer.body)
        if len(self._found) >= _MOST or self._bytes + size > _MOST_BYTES:
            self._found.clear()
            self._bytes = 0
        expiry = key.next_expiry(asked_at)
        until = math.inf if expiry is None else expiry
        known = _Known(grant, asked.caller, until, answer.rounds, head, answer.body)
        self._found[data, peer] = known
        self._bytes += size

    def _has_changed(self) -> bool:
        """Forget all answers when what they depend on has changed since the last look; return whether it has."""
        hub = self._registry.hub
        moment = (hub.generation, hub.head.sequence, self._admission.changes)
        if moment == self._moment:
            return False
        self._moment = moment
        self._found.clear()
        self._bytes = 0
        return True
