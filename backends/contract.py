"""The contract between a source of rounds and the publisher. One could write a backend from this page alone.

A backend only reads: it yields what its source holds and takes confirmations. Everything else (de-duplication,
pipelining, retries, the log) is done once, for all backends, by `backends.publish.publisher`.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from rounds import Catalogue, Round

P = TypeVar("P")
"""A backend's own kind of offset. Only that backend looks inside; the publisher hands it back as it got it."""

P_co = TypeVar("P_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What every backend is given besides its own options."""

    catalogue: Catalogue
    """The games of this installation; a round of any other game is to be rejected."""
    interactive: bool = False
    """A person watches on stderr: a backend that knows how much there is may show how far it is."""


class Captured(NamedTuple, Generic[P]):
    """One round as a backend read it, and the offset in the source right after it."""

    round: Round
    offset: P


class Rejected(NamedTuple, Generic[P]):
    """Something in the source that cannot become a round. It must not stop the flow, and must not vanish either."""

    key: str
    """How an operator finds it in the source: ``file.jsonl:17``, a primary key."""
    reason: str
    """One sentence: the field, its value, what is allowed."""
    raw: bytes
    """What the source held, as it was, cut to 64 KiB."""
    offset: P


class Backend(Protocol[P]):
    """A source of rounds. Entered once per process with ``async with``; leaving closes connections and files at once.

    Constructed as ``Backend(options, context)``, see `backends.registry`. Options are checked in the constructor, which
    does no I/O and raises `InvalidOptions`.
    """

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect to the source for as long as the block lasts.

        Raises:
            SourceError: The source cannot be used as configured; the text says what to do.
        """
        ...

    def read(self) -> AsyncIterator[Sequence[Captured[P] | Rejected[P]]]:
        """Yield batches of what was committed, in commit order, from the last confirmed offset on.

        Called once per `open`. A batch holds what is there without waiting, at most a few thousand items, and never is
        empty. Rounds that were yielded but not confirmed before a crash are yielded again after it: at least once,
        never less. Ends when the source is exhausted; a source that never is (a database) reconnects by itself, with
        backoff, and goes on from the last yielded offset. Cancelling it loses nothing: what was not confirmed comes
        again.

        Back-pressure is the caller's: it simply asks for the next batch later. A backend reads ahead a bounded amount.

        Raises:
            SourceError: Reading cannot go on without an operator.
        """
        ...

    def confirm(self, offset: P) -> None:
        """Take note that everything up to `offset` is stored for good and need not be yielded again.

        Called with non-decreasing positions, often; must return at once. Telling the source may happen later, but
        happens at the latest when `open` is left.
        """
        ...


class KeptOffset(NamedTuple):
    """An offset of a source that no round carries, as it was kept beside the log."""

    offset: str
    note: str
    """What the backend wanted to remember with it."""
    epoch: str
    """Of the log then."""
    last: int
    """The log's newest sequence then. Everything of the source up to `offset` was stored at or before it."""
    kept_ms: int
    """When, Unix milliseconds."""


class OffsetTaken(Exception):
    """Another process has kept an offset of this source since: it reads it now."""


class SourceOffsets(Protocol[P_co]):
    """What the log remembers of a source, over all processes that ever read it. Given to whoever `HasOffsets`.

    A source is named by a text that no other source of the log has. Every method waits for a log that is away.
    """

    @property
    def stored(self) -> P_co | None:
        """The newest offset that stands in the log with its round, everything before it being settled; None: none."""
        ...

    async def kept(self, source: str) -> KeptOffset | None:
        """Return what was kept last; None: nothing, or it is not for us to know."""
        ...

    async def recall(self, source: str, comes_again: Callable[[str], bool], *, since: KeptOffset | None = None) -> None:
        """Learn which rounds the log holds, as far back as there are rounds that the source will yield again.

        They are recognised by their ids when they come. How much is learnt has a bound; what is beyond is warned of.

        Args:
            source: Rounds whose offset begins with this and a colon are its own.
            comes_again: Called with each offset of the source that is found, without its name: whether the source
                yields rounds with that offset, or later ones, again.
            since: Something kept at an offset before everything that comes again: there is no need to look further.
        """
        ...

    async def keep(self, source: str, offset: str, note: str = "") -> bool:
        """Remember an offset, for good once this returns; False: this log cannot, and never will.

        Raises:
            OffsetTaken: It is not for us to say any more.
        """
        ...

    async def newest(self) -> Mapping[str, int]:
        """Return the id of the newest round of each game that the log has rounds of."""
        ...


@runtime_checkable
class HasOffsets(Protocol[P_contra]):
    """What a backend may also have: positions that mean the same to every process that reads its source.

    Then each round carries its own into the log, and the backend can see after a restart whether its source has gone
    on without it. Asked for once, before `Backend.open`.
    """

    def offset_text(self, offset: P_contra) -> bytes | None:
        """Write an offset as ``source:offset``, at most 64 of ``A-Z a-z 0-9 : . -``; None: it has no such form.

        Called for every round: it must cost next to nothing.
        """
        ...

    def attach(self, offsets: SourceOffsets[P_contra]) -> None:
        """Take what the log remembers; called before `Backend.open`, and once."""
        ...


class BackendError(Exception):
    """Base of what backends raise; ``str()`` is the sentence an operator reads."""


class InvalidOptions(BackendError):
    """An option is unknown, missing or wrong. The text names it, its value and what is allowed."""


class SourceError(BackendError):
    """The source cannot be read (any further); the text says where and what to do."""
