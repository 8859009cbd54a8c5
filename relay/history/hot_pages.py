"""Pages of the past that many clients ask for at nearly the same time: rendered once, until the next round comes.

Owns how long a page is kept, and how many are. A page is that of `relay.history.query.page_at_hand`.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.history.history import History
from relay.history.query import Query, page_at_hand

if TYPE_CHECKING:
    from relay.live.hub import Generation

_MOST: Final = 32
_MOST_BYTES: Final = 128 << 10
"""Of one page; all of them have 4 MB at most."""


class HotPage(NamedTuple):
    """A whole page, rendered."""

    body: bytes
    """The JSON array of its rounds."""
    rounds: int
    next_before: str
    """The cursor before which the next page begins."""


class HotPages:
    """The pages that were asked for since the last round."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[frozenset[str], int | None, int], HotPage] = OrderedDict()
        self._moment: tuple[Generation, int] | None = None  # what the log was when they were made

    def find(self, history: History, query: Query) -> HotPage | None:
        """Return the page that a query asks for, when it is in memory and little work; None otherwise."""
        hub = history.hub
        moment = (hub.generation, hub.head.sequence)
        if moment != self._moment:
            self._moment = moment
            self._pages.clear()
        before = query.before
        key = None
        if query.after is None and query.since_ms is None and query.until_ms is None and query.wanted.filter.is_empty:
            key = (query.wanted.games, None if before is None else before.sequence, query.limit)
        if key is not None and (before is None or before.epoch == hub.head.epoch):
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
                return page
        found = page_at_hand(history, query)
        if found is None:
            return None
        body = b"[%b]" % b",".join([item.json for item in found.items])
        page = HotPage(body, len(found.items), str(found.next_before))
        if key is not None and len(body) <= _MOST_BYTES:
            self._pages[key] = page
            if len(self._pages) > _MOST:
                self._pages.popitem(last=False)
        return page
