"""What links get that resume a little behind the head: rendered once for all of them, wherever each one begins.

Clients that one relay has disconnected come to another one at the same time, a few rounds behind. All that want the
same rounds in the same form get parts of one list, and those that begin at the same sequence get the same bytes. Owns
how long that is kept: until the hub has the next round. Knows nothing of links or of the log.
"""

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from relay.live.channels import Subscription
from relay.live.encode import Form
from relay.live.hub import Hub
from relay.live.stored import Written, joined

if TYPE_CHECKING:
    from rounds import Cursor

log = structlog.get_logger()

_KEPT: Final = 64
"""Subscriptions and forms whose rounds are kept: some 25 KB each."""


class _Tail(NamedTuple):
    """The rounds of one subscription in one form, from a sequence up to the head."""

    begin: int
    sequences: list[int]
    rendered: list[bytes]
    joined: dict[int, Written]  # by the index of the first


class SharedTails:
    """The tails of one hub. One per process."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._head: Cursor | None = None  # of which the tails are
        self._tails: dict[tuple[Subscription, Form, int], _Tail] = {}

    def after(self, position: int, wanted: Subscription, form: Form, *, limit: int) -> Written | None:
        """Return all rounds after a position, as one write.

        None when the ring lacks some of them, or there are `limit` or more, or the position is after the head. A round
        that cannot be rendered is logged and missing, as in the hub.
        """
        hub = self._hub
        if position > hub.head.sequence:
            return None
        if self._head is not hub.head:  # a new object with each round
            self._head = hub.head
            self._tails.clear()
        key = (wanted, form, limit)
        tail = self._tails.get(key)
        if tail is None or position < tail.begin:
            tail = self._make(position, wanted, form, limit)
            if tail is None:
                return None
            if len(self._tails) >= _KEPT:
                del self._tails[next(iter(self._tails))]
            self._tails[key] = tail
        at = bisect_right(tail.sequences, position)
        found = tail.joined.get(at)
        if found is None:
            rendered = tail.rendered[at:]
            found = tail.joined[at] = joined(form, rendered) if rendered else Written(b"", 0, 0)
        return found

    def _make(self, position: int, wanted: Subscription, form: Form, limit: int) -> _Tail | None:
        items = self._hub.ring.after(position, wanted.games, limit=limit)
        if items is None or len(items) >= limit:
            return None
        sequences, rendered = list[int](), list[bytes]()
        for item in items:
            try:
                if item.valid and item.matches(wanted.filter):
                    rendered.append(item.rendered(form))
                    sequences.append(item.sequence)
            except Exception:
                log.exception("round_failed", game=item.game, cursor=item.cursor)
        return _Tail(position, sequences, rendered, {})
