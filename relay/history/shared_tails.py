"""What links get that resume a little behind the head: rendered once for all of them, wherever each one begins.

Clients that one relay has disconnected come to another one at the same time, a few rounds behind. All that want the
same rounds in the same form get parts of one list, and those that begin at the same sequence get the same bytes. Owns
how long that is kept: tails until the hub has the next round, parts of longer ones until others displace them. Knows
nothing of links or of the log.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from relay.history.reading.stretch import CELL
from relay.live.channels import Subscription
from relay.live.encode import Form
from relay.live.hub import Generation, Hub
from relay.live.item import Item
from relay.live.stored import Written, joined

if TYPE_CHECKING:
    from rounds import Cursor

log = structlog.get_logger()

_KEPT: Final = 64
"""Tails and parts that are kept: some 25 KB each."""


class _Tail(NamedTuple):
    """The rounds of one subscription in one form, from a sequence up to the head."""

    begin: int
    sequences: list[int]
    rendered: list[bytes]
    joined: dict[int, Written]  # by the index of the first


class Part(NamedTuple):
    """Some rounds as one write; all up to sequence `end` are in it, or not wanted."""

    written: Written
    end: int


class SharedTails:
    """The tails of one hub, and parts of longer ones. One per process."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._parts: dict[tuple[Generation, int, Subscription, Form, int], Part] = {}
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

    def first_after(self, position: int, wanted: Subscription, form: Form, *, limit: int) -> Part | None:
        """Return the first rounds after a position, at most `limit`; None when the ring lacks some, or has fewer.

        Parts end at multiples of `CELL`, so that links which began at different positions get the same ones soon.
        """
        key = (self._hub.generation, position, wanted, form, limit)
        part = self._parts.get(key)
        if part is None:
            items = self._hub.ring.after(position, wanted.games, limit=limit)
            if items is None or len(items) < limit:
                return None
            last = items[-1].sequence
            end = last - last % CELL
            kept = bisect_right(items, end, key=attrgetter("sequence"))
            if 2 * kept < limit:  # rounds of quiet games, far apart
                kept, end = limit, last
            _, rendered = _rendered(items[:kept], wanted, form)
            if len(self._parts) >= _KEPT:
                del self._parts[next(iter(self._parts))]
            part = self._parts[key] = Part(joined(form, rendered) if rendered else Written(b"", 0, 0), end)
        return part

    def _make(self, position: int, wanted: Subscription, form: Form, limit: int) -> _Tail | None:
        items = self._hub.ring.after(position, wanted.games, limit=limit)
        if items is None or len(items) >= limit:
            return None
        return _Tail(position, *_rendered(items, wanted, form), {})


def _rendered(items: Sequence[Item], wanted: Subscription, form: Form) -> tuple[list[int], list[bytes]]:
    """Return the sequences, and the bytes, of those items that are wanted."""
    sequences, rendered = list[int](), list[bytes]()
    for item in items:
        try:
            if item.valid and item.matches(wanted.filter):
                rendered.append(item.rendered(form))
                sequences.append(item.sequence)
        except Exception:
            log.exception("round_failed", game=item.game, cursor=item.cursor)
    return sequences, rendered
