"""Objects sorted by a number: adding, removing and finding a range cost little however many there are. Pure."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable
from typing import Any, Final, Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)

_BLOCK: Final = 512
"""Members of a block, at most twice as many. To insert one moves the rest of its block: less than a search takes."""

_Key = tuple[float, int]


class SortedMembers(Generic[_T]):
    """A set of objects by identity, each with a number, which several may share.

    Adding and removing take logarithmic time in effect: blocks of a list, and a list of their first keys.
    """

    __slots__ = ("_blocks", "_firsts", "_keys", "_next")

    def __init__(self) -> None:
        self._blocks: list[list[Any]] = []  # of (key, member); a key alone comes before it
        self._firsts: list[_Key] = []
        self._keys: dict[_T, _Key] = {}
        self._next = 0

    def add(self, number: float, member: _T) -> None:
        """Add an object that is not there."""
        # Objects of the same number have keys of their own: one is found without looking at the others.
        key = self._keys[member] = (number, self._next)
        self._next += 1
        at = self._block_of(key)
        if at < 0:
            self._blocks.append([(key, member)])
            self._firsts.append(key)
            return
        block = self._blocks[at]
        insort(block, (key, member))  # keys differ: members are not compared
        self._firsts[at] = block[0][0]
        if len(block) > 2 * _BLOCK:
            self._blocks[at : at + 1] = [block[:_BLOCK], block[_BLOCK:]]
            self._firsts.insert(at + 1, block[_BLOCK][0])

    def discard(self, member: _T) -> None:
        """Remove an object, if it is there."""
        key = self._keys.pop(member, None)
        if key is None:
            return
        at = self._block_of(key)
        block = self._blocks[at]
        del block[bisect_left(block, (key,))]
        if block:
            self._firsts[at] = block[0][0]
        else:
            del self._blocks[at], self._firsts[at]

    def between(self, least: float, most: float) -> list[_T]:
        """Return the objects with numbers from `least` to `most`, both included, in order."""
        begin, end = (least, -1), (most, self._next)
        first = max(0, bisect_left(self._firsts, begin) - 1)
        found: list[_T] = []
        for block in self._blocks[first : bisect_right(self._firsts, end)]:
            found += [member for _, member in block[bisect_left(block, (begin,)) : bisect_right(block, (end,))]]
        return found

    def __len__(self) -> int:
        return len(self._keys)

    def _block_of(self, key: _Key) -> int:
        """Return the block in which a key is or belongs; -1: there is none yet."""
        return max(0, bisect_right(self._firsts, key) - 1) if self._firsts else -1
