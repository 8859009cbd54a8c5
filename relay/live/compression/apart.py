"""Compressed writes that any decoder of a form reads: for links that are not in step with a window. Pure.

Many links need the same ones: when channels have different filters, and when clients return together. So what was made
last is kept, by the rounds that it is made of.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from relay.live.compression.deflate_window import DeflateWindow

_KEPT_BYTES: Final = 1 << 20
"""Rounds and what is made of them, kept for each form: so much of single rounds, and so much of runs."""
_RUN: Final = 32
"""How many rounds a run of a longer write has on average. Only its first round is compressed without others."""

Writer = Callable[[Sequence[bytes], DeflateWindow], bytes]


class Apart:
    """Makes the writes of one form."""

    __slots__ = ("_kept", "_kept_bytes", "_singles", "_singles_bytes", "_window", "_window_bits", "_write")

    def __init__(self, window_bits: int, write: Writer) -> None:
        """`write` makes a write from rounds, as a decoder reads it that has read what the window refers to."""
        self._window_bits = window_bits
        self._window: DeflateWindow | None = None
        self._write = write
        self._singles: dict[bytes, bytes] = {}
        self._singles_bytes = 0
        self._kept: dict[tuple[bytes, ...], bytes] = {}
        self._kept_bytes = 0

    def each(self, rounds: Sequence[bytes]) -> bytes:
        """Make a write of rounds of which each is compressed by itself: other links may get others of them."""
        singles = self._singles
        return b"".join([singles.get(round_) or self._single(round_) for round_ in rounds])

    def together(self, rounds: Sequence[bytes]) -> bytes:
        """Make a small write of rounds that are compressed together, in runs."""
        return b"".join([self._run(run) for run in _runs(rounds)])

    def _single(self, round_: bytes) -> bytes:
        if self._singles_bytes > _KEPT_BYTES:
            self._singles.clear()
            self._singles_bytes = 0
        made = self._singles[round_] = self._made((round_,))
        self._singles_bytes += len(round_) + len(made)
        return made

    def _run(self, run: tuple[bytes, ...]) -> bytes:
        made = self._kept.pop(run, None)
        if made is None:
            made = self._made(run)
            self._kept_bytes += _size(run, made)
        self._kept[run] = made  # the last one that was used stands last
        while self._kept_bytes > _KEPT_BYTES:
            oldest = next(iter(self._kept))
            self._kept_bytes -= _size(oldest, self._kept.pop(oldest))
        return made

    def _made(self, run: tuple[bytes, ...]) -> bytes:
        window = self._window = self._window or DeflateWindow(self._window_bits)
        try:
            return self._write(run, window)
        finally:
            window.empty()


def _size(run: tuple[bytes, ...], made: bytes) -> int:
    return sum(map(len, run)) + len(made)


def _runs(rounds: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Cut rounds into runs at places that depend on the round there alone: links that return together share runs."""
    begin = 0
    for at in range(1, len(rounds)):
        if not hash(rounds[at]) % _RUN:
            yield tuple(rounds[begin:at])
            begin = at
    yield tuple(rounds[begin:])
