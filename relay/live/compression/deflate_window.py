"""A raw DEFLATE stream (RFC 1951) that many decoders read, each from a place where its window was emptied. Pure.

Every write ends with an empty stored block, at a whole byte: decoders give out everything up to there, also those that
look for that block (Go's ``compress/flate``).
"""

import zlib
from typing import Final

MOST_BITS: Final = 14
"""The largest window used. With 64 rounds it holds more than repeats; each bit doubles memory, for a few percent."""
_LEVEL: Final = 7
_MEMORY_LEVEL: Final = 7
END_OF_WRITE: Final = b"\x00\x00\xff\xff"
"""The end of every write: the lengths of an empty stored block."""
END_OF_STREAM: Final = b"\x03\x00"
"""A last block without data. It may follow every write."""


class DeflateWindow:
    """A compressor of at most 128 KB, and what it can refer to.

    With these settings a round of 190 bytes becomes one of 27 to 34 in 5 µs, as part of a stream of rounds.
    """

    __slots__ = ("_deflate",)

    def __init__(self, bits: int) -> None:
        """`bits`: the largest window of the decoders, 9 to 15."""
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -min(bits, MOST_BITS), _MEMORY_LEVEL)

    def write(self, data: bytes) -> bytes:
        """Compress `data`, which must not be empty, for decoders that have read every write since `empty`."""
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def empty(self) -> None:
        """Refer to nothing before this place: any decoder at the end of a write can read what follows."""
        # Dropped: another empty stored block, since the last write ended with one.
        self._deflate.flush(zlib.Z_FULL_FLUSH)
