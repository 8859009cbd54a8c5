"""A set of objects by identity, of which adding, removing and iterating cost what its members cost. Pure.

Links and channels come and go in any order. A list must be searched to remove one; a `set` keeps the memory of all that
were in it, and iterating visits all of that.
"""

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)

_FEW: Final = 64
"""Removals that are not worth a rebuild."""


class Members(Generic[_T]):
    """Objects in the order in which they were added. Each operation takes constant time, on average."""

    __slots__ = ("_members", "_removed")

    def __init__(self) -> None:
        self._members: dict[_T, None] = {}
        self._removed = 0  # since the memory was last rebuilt

    def add(self, member: _T) -> None:
        """Add an object; nothing changes when it is there."""
        self._members[member] = None

    def discard(self, member: _T) -> None:
        """Remove an object, if it is there."""
        if member not in self._members:
            return
        del self._members[member]
        self._removed += 1
        if self._removed > len(self._members) + _FEW:
            # A dict keeps the places of removed keys. At most as many are copied as were removed since the last time.
            self._members = dict.fromkeys(self._members)
            self._removed = 0

    def __iter__(self) -> Iterator[_T]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)
