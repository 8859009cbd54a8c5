"""The contract between a source of rounds and the publisher. How to write a backend: docs/backends.md

A backend only reads: it yields what its source holds and takes confirmations. Everything else (de-duplication,
pipelining, retries, the log) is done once, for all backends, by `backends.publish`.

Errors of a backend:

BackendError
├── InvalidOptions   an option is unknown, missing or wrong; raised by the constructor
└── SourceError      the source cannot be read until an operator acts
    └── SourceUnavailable   raised by `Backend.open`: it cannot be read now; ingest tries again
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from rounds import Catalogue, Round

P = TypeVar("P")
"""A backend's own type of offset. Only that backend looks inside; the publisher returns the same objects to it."""

P_co = TypeVar("P_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What every backend gets besides its own options."""

    catalogue: Catalogue
    """The games of this installation; a round of any other game must be rejected."""
    interactive: bool = False
    """True when a person watches stderr: a backend that knows the size of its source may show progress."""


class Captured(NamedTuple, Generic[P]):
    """One round that a backend read, and the offset right after it."""

    round: Round
    """Its `Round.revision` is always 1: the publisher numbers corrections."""
    offset: P
    is_correction: bool = False
    """Whether it is a later state of a round that was finished before: a change of its content, or, with
    `Round.voided`, that it is taken back. Only with the option ``corrections``. From a source with offsets, its
    `Round.timestamp` is when it was committed, the same each time it is yielded: it is recognised by that."""


class Rejected(NamedTuple, Generic[P]):
    """Something in the source that cannot become a round. It must neither stop the flow nor vanish."""

    key: str
    """How an operator finds it in the source: ``file.jsonl:17``, a primary key."""
    reason: str
    """One sentence: the field, its value, what is allowed."""
    raw: bytes
    """What the source held, unchanged, cut to 64 KiB."""
    offset: P


class Backend(Protocol[P]):
    """A source of rounds. Entered once per process with ``async with``; leaving closes connections and files at once.

    Constructed as ``Backend(options, context)``, see `backends.registry`. The constructor checks the options, does no
    I/O, and raises `InvalidOptions`.
    """

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect to the source for as long as the block runs.

        Raises:
            SourceUnavailable: The source cannot be reached now. Ingest calls `open` again later, until it can.
            SourceError: The source cannot be used as configured; the text says what to do.
        """
        ...

    def read(self) -> AsyncIterator[Sequence[Captured[P] | Rejected[P]]]:
        """Yield batches of what was committed, in commit order, from the last confirmed offset on.

        Called once per `open`. A batch holds what is available without waiting: at least one item, at most a few
        thousand. Delivery is at least once: rounds that were yielded but not confirmed before a crash are yielded
        again after it. The iterator ends when the source is exhausted. A source that never ends (a database) reconnects
        by itself, with backoff, and continues after the last yielded offset. Cancelling the iterator loses nothing:
        what was not confirmed is yielded again.

        Backpressure comes from the caller, which asks for the next batch when it has room. A backend reads ahead by a
        bounded amount.

        Raises:
            SourceError: Reading cannot continue until an operator acts.
        """
        ...

    def confirm(self, offset: P) -> None:
        """Note that everything up to `offset` is durably stored and need not be yielded again.

        Called often, with non-decreasing offsets; must return at once. The backend may pass the confirmation to its
        source later, at the latest when `open` is left.
        """
        ...


class KeptOffset(NamedTuple):
    """An offset that no round carries, stored beside the log."""

    offset: str
    note: str
    """What the backend stored with it."""
    epoch: str
    """The log's epoch at that time."""
    last: int
    """The log's newest sequence at that time. Everything up to `offset` was stored at or before it."""
    lost: bool = False
    """Whether rounds that were stored after it have expired or were purged, with the offsets that they carried."""


class OffsetTaken(Exception):
    """Another process has since stored an offset of this source, so it now reads the source."""


class SourceOffsets(Protocol[P_co]):
    """What the log knows of a source, across all processes that ever read it. For backends that implement `HasOffsets`.

    A source is named by a text that no other source of the log has. Every method waits while the log is unavailable.
    """

    @property
    def stored(self) -> P_co | None:
        """The newest offset whose round is in the log, with everything before it settled; None: there is none."""
        ...

    async def kept(self, source: str) -> KeptOffset | None:
        """Return the offset that was stored last; None when there is none, or when it may not be read.

        Waits until the log also answers publishes of this process, for at most some ten seconds once it can be read.
        """
        ...

    async def recall(
        self,
        source: str,
        comes_again: Callable[[str], bool],
        *,
        since: KeptOffset | None = None,
        stored_since: datetime | None = None,
    ) -> None:
        """Read from the log which rounds it holds, as far back as the source will yield rounds again.

        The publisher then recognises these rounds by their ids and skips them. The number of rounds read is bounded;
        when the bound is reached before the end, a warning is logged.

        Args:
            source: A round belongs to this source when its offset begins with this name and a colon.
            comes_again: Called with each offset of the source that is found, without the name; returns whether the
                source yields rounds with that offset, or later ones, again.
            since: An offset that was stored before everything that is yielded again; reading stops there.
            stored_since: What was stored from then on is read in any case, with the offset of any source: another
                backend may have stored what is yielded.
        """
        ...

    async def keep(self, source: str, offset: str, note: str = "") -> bool:
        """Store an offset; it is durable once this returns. False: this log can never store offsets.

        Raises:
            OffsetTaken: Another process reads the source now.
        """
        ...

    async def newest(self) -> Mapping[str, int]:
        """Return the newest round's id for each game that has rounds in the log."""
        ...


@runtime_checkable
class HasOffsets(Protocol[P_contra]):
    """What a backend may also implement: offsets that mean the same to every process that reads its source.

    Each round then carries its offset into the log, and after a restart the backend can see whether its source was
    moved or read by another process. Looked for once, before `Backend.open`.
    """

    def offset_text(self, offset: P_contra) -> bytes | None:
        """Write an offset as ``source:offset``, at most 64 of ``A-Z a-z 0-9 : . -``; None: it has no such form.

        Called for every round, so it must be cheap.
        """
        ...

    def attach(self, offsets: SourceOffsets[P_contra]) -> None:
        """Take the log's knowledge of the source. Called once, before `Backend.open`."""
        ...


@runtime_checkable
class HasStandby(Protocol):
    """What a backend may also implement: of several processes one reads its source, and the others wait for it to end.

    A process that cannot publish then lets another one read.
    """

    @property
    def leads(self) -> bool:
        """Whether this process keeps others from reading now."""
        ...

    async def step_down(self) -> None:
        """Let another process read, at once. Called within `Backend.open`, after the iterator of `read` was closed.

        `read` is then called once more. It waits until no other process reads, and yields from the last offset that
        any process has confirmed to the source. Offsets yielded before are not confirmed any more.
        """
        ...


class BackendError(Exception):
    """Base of the errors that backends raise; ``str()`` is the sentence for the operator."""


class InvalidOptions(BackendError):
    """An option is unknown, missing or wrong. The text names it, its value and what is allowed."""


class SourceError(BackendError):
    """The source cannot be read until an operator acts; the text says where and what to do."""


class SourceUnavailable(SourceError):
    """The source cannot be used now. It may heal without an operator.

    It cannot be reached (refused, starting, too many connections), or another process uses what this one needs.
    """
