"""The contract between a source of rounds and the publisher. One could write a backend from this page alone.

A backend only reads: it yields what its source holds and takes confirmations. Everything else (de-duplication,
pipelining, retries, the log) is done once, for all backends, by `backends.publisher`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from rounds import Catalogue, Round

P = TypeVar("P")
"""A backend's own kind of position. Only that backend looks inside; the publisher hands it back as it got it."""


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What every backend is given besides its own options."""

    catalogue: Catalogue
    """The games of this installation; a round of any other game is to be rejected."""
    interactive: bool = False
    """A person watches on stderr: a backend that knows how much there is may show how far it is."""


class Captured(NamedTuple, Generic[P]):
    """One round as a backend read it, and the place in the source right after it."""

    round: Round
    position: P


class Rejected(NamedTuple, Generic[P]):
    """Something in the source that cannot become a round. It must not stop the flow, and must not vanish either."""

    key: str
    """How an operator finds it in the source: ``file.jsonl:17``, a primary key."""
    reason: str
    """One sentence: the field, its value, what is allowed."""
    raw: bytes
    """What the source held, as it was, cut to 64 KiB."""
    position: P


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
        """Yield batches of what was committed, in commit order, from the last confirmed position on.

        Called once per `open`. A batch holds what is there without waiting, at most a few thousand items, and never is
        empty. Rounds that were yielded but not confirmed before a crash are yielded again after it: at least once,
        never less. Ends when the source is exhausted; a source that never is (a database) reconnects by itself, with
        backoff, and goes on from the last yielded position. Cancelling it loses nothing: what was not confirmed comes
        again.

        Back-pressure is the caller's: it simply asks for the next batch later. A backend reads ahead a bounded amount.

        Raises:
            SourceError: Reading cannot go on without an operator.
        """
        ...

    def confirm(self, position: P) -> None:
        """Take note that everything up to `position` is stored for good and need not be yielded again.

        Called with non-decreasing positions, often; must return at once. Telling the source may happen later, but
        happens at the latest when `open` is left.
        """
        ...


class BackendError(Exception):
    """Base of what backends raise; ``str()`` is the sentence an operator reads."""


class InvalidOptions(BackendError):
    """An option is unknown, missing or wrong. The text names it, its value and what is allowed."""


class SourceError(BackendError):
    """The source cannot be read (any further); the text says where and what to do."""
