"""One compressed stream for all links of a channel: which are in step with its window, and when it is emptied. Pure.

A link reads what the window compresses if it has got everything since the window was last emptied, and nothing else
compressed. Other links wait for the next emptying, and meanwhile get each write in a form that depends on nothing.
Why links wait, and how long: docs/adr/0047-a-window-that-links-share.md
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from relay.live.compression.checksum import Checksum
from relay.live.compression.deflate_window import DeflateWindow
from relay.live.encode import Renderable

if TYPE_CHECKING:
    from relay.live.compression.comments import Comments

L = TypeVar("L", bound=Hashable)
"""A link, of which nothing is known here."""
_OLD_ROUNDS: Final = 64
"""Rounds after which the window is emptied when a link waits, however few they are."""
_MOST_WINDOWS: Final = 32
"""Windows of a process: 4 MB, and at most 0.3 ms for a round that matches every channel."""
_ASKS_AGAIN: Final = 256
"""Writes after which a channel without a window asks for one again."""
_IDLE_WRITES: Final = 4096
"""A window that was not used in so many writes with windows may be taken by another channel."""


class WindowedForm(ABC):
    """A form (`relay.live.encode.Form`) whose writes may depend on what its decoder has read."""

    __slots__ = ()

    window_bits: int
    """The window that all decoders of this form have."""
    has_checksum = False
    """Whether its streams end with a checksum of what was compressed."""

    @abstractmethod
    def render(self, item: Renderable) -> bytes:
        """Render one round, as the other methods take it."""

    @abstractmethod
    def join(self, rendered: Sequence[bytes]) -> bytes:
        """Make a write that any decoder reads, as small as it can be."""

    @abstractmethod
    def each(self, rendered: Sequence[bytes]) -> bytes:
        """Make a write that any decoder reads, of parts that other channels share."""

    @abstractmethod
    def plain_bytes(self, rendered: Sequence[bytes]) -> int:
        """Return how many bytes a client without compression gets of rounds: what accounts count for every client."""

    @abstractmethod
    def write(self, rendered: Sequence[bytes], window: DeflateWindow) -> bytes:
        """Make a write for decoders that have read everything since the window was last emptied."""


class Write(NamedTuple, Generic[L]):
    """The same bytes for some links of a channel."""

    links: Sequence[L]
    data: bytes


@dataclass(slots=True)
class Windows:
    """The windows of a process: a bounded number, for the channels that make the most of them."""

    _holders: "dict[SharedStream[Any], None]" = field(default_factory=dict)
    writes: int = field(default=0, compare=False)
    """How many writes were made with any window."""

    def take(self, stream: "SharedStream[Any]") -> bool:
        """Take a window for a stream; return False when all are used by streams of at least half as many links."""
        if len(self._holders) >= _MOST_WINDOWS:
            holder = min(self._holders, key=self._worth)
            if self._worth(holder) * 2 >= stream.links:
                return False
            holder.drop_window()
        self._holders[stream] = None
        return True

    def give_back(self, stream: "SharedStream[Any]") -> None:
        """Take back the window of a stream."""
        self._holders.pop(stream, None)

    def _worth(self, stream: "SharedStream[Any]") -> int:
        return 0 if self.writes - stream.used_at > _IDLE_WRITES else stream.links


class SharedStream(Generic[L]):
    """The compressed stream of one channel."""

    __slots__ = (
        "_age",
        "_asks_in",
        "_form",
        "_waited",
        "_waiting",
        "_window",
        "_windows",
        "checksum",
        "comments",
        "links",
        "used_at",
    )

    def __init__(self, form: WindowedForm, windows: Windows) -> None:
        self.links = 0
        """Links of the channel."""
        self.used_at = 0
        """The number of the last write with its window, as `Windows` counts them."""
        self.checksum = Checksum()
        """Of all that was written to each link of the channel; only if its form has one."""
        self.comments: Comments | None = None
        """What is written to all links of the channel beside rounds."""
        self._form = form
        self._windows = windows
        self._window: DeflateWindow | None = None
        self._asks_in = 0  # writes
        self._age = 0  # rounds since the window was emptied
        self._waiting: set[L] = set()
        self._waited = 0  # rounds that waiting links have got since then, added up over the links

    def join(self, link: L) -> None:
        """Add a link, whose decoder may have read anything."""
        self.links += 1
        self.put_out_of_step(link)

    def leave(self, link: L) -> None:
        """Remove a link that was added."""
        self.links -= 1
        self._waiting.discard(link)
        if not self.links:
            self.drop_window()
            self.comments = None

    def put_out_of_step(self, link: L) -> None:
        """Note that a link was written something compressed that others were not."""
        if self._age:
            self._waiting.add(link)

    def writes(self, rounds: list[bytes], links: Sequence[L]) -> list[Write[L]]:
        """Make the writes of some rounds for the links of the channel."""
        if self._form.has_checksum:
            self.checksum = self.checksum.with_data(b"".join(rounds))
        window = self._window or self._taken()
        if window is None:
            return [Write(links, self._form.each(rounds))]
        self._windows.writes += 1
        self.used_at = self._windows.writes
        if self._waiting and self._is_worth_emptying():
            window.empty()
            self._age = 0
        if not self._age:
            self._waiting.clear()
            self._waited = 0
        data = self._form.write(rounds, window)
        self._age += len(rounds)
        waiting = self._waiting
        if not waiting:
            return [Write(links, data)]
        self._waited += len(waiting) * len(rounds)
        apart = self._form.join(rounds)
        in_step = [link for link in links if link not in waiting]
        return [Write(in_step, data), Write(list(waiting), apart)]

    def drop_window(self) -> None:
        """Give the window back."""
        self._windows.give_back(self)
        self._window, self._asks_in = None, _ASKS_AGAIN
        self._age = self._waited = 0
        self._waiting.clear()

    def _is_worth_emptying(self) -> bool:
        """Whether links have waited long enough, by the bytes that this costs.

        It makes the next round of those in step as large as each round of those that wait.
        """
        waiting = len(self._waiting)
        return self._age >= _OLD_ROUNDS or self._waited + waiting >= self.links - waiting

    def _taken(self) -> DeflateWindow | None:
        if self._asks_in:
            self._asks_in -= 1
        elif self._windows.take(self):
            self._window = DeflateWindow(self._form.window_bits)
        else:
            self._asks_in = _ASKS_AGAIN
        return self._window
