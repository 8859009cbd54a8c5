"""The CRC-32 and the length of what many streams have in common, without reading it again for each of them. Pure.

CRC-32 is linear: that of a text followed by another one is known from both and the length of the second. So a stream
that shares its middle with others needs no more than the values at the ends of that part (zlib has ``crc32_combine``
for this, which Python does not offer).
"""

import functools
import zlib
from typing import Final, NamedTuple, Self

_POLYNOMIAL: Final = 0xEDB88320
"""Of CRC-32 (RFC 1952 section 8), bits reversed: the highest bit is the coefficient of x^0."""
_ONE: Final = 1 << 31


class Checksum(NamedTuple):
    """Of everything that a stream has had."""

    crc: int = 0
    size: int = 0

    def with_data(self, data: bytes) -> Self:
        """Return that of the stream followed by `data`."""
        return type(self)(zlib.crc32(data, self.crc), self.size + len(data))

    def with_part(self, begin: "Checksum", end: "Checksum") -> Self:
        """Return that of the stream followed by what another one had from `begin` to `end`. Takes some 20 µs."""
        size = end.size - begin.size
        if not size:
            return self
        return type(self)(_times(_zeros(size), self.crc ^ begin.crc) ^ end.crc, self.size + size)

    def trailer(self) -> bytes:
        """Return the end of a gzip member: CRC32 and ISIZE (RFC 1952 section 2.3.1)."""
        return self.crc.to_bytes(4, "little") + (self.size & 0xFFFFFFFF).to_bytes(4, "little")


def checksum_of(data: bytes) -> Checksum:
    """Return that of a stream that has had `data` only."""
    return Checksum(zlib.crc32(data), len(data))


def _times(a: int, b: int) -> int:
    """Multiply two polynomials modulo that of CRC-32."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _zeros(size: int) -> int:
    """Return by what a checksum is multiplied when `size` bytes follow: x to the power of their bits."""
    result, place = _ONE, 0
    while size:
        if byte := size & 0xFF:
            result = _times(_zeros_of(byte, place), result)
        size, place = size >> 8, place + 1
    return result


@functools.cache  # at most 2,040 values
def _zeros_of(byte: int, place: int) -> int:
    """Return the same for so many times 256 to the power of `place` bytes."""
    exponent, bit, result = byte, (3 + 8 * place) % len(_SQUARES), _ONE
    while exponent:
        if exponent & 1:
            result = _times(_SQUARES[bit], result)
        exponent, bit = exponent >> 1, (bit + 1) % len(_SQUARES)
    return result


def _squares() -> list[int]:
    """Return x^(2^n) for n from 0 to 31; x^(2^32) is x again."""
    squares = [_ONE >> 1]
    for _ in range(31):
        squares.append(_times(squares[-1], squares[-1]))
    return squares


_SQUARES: Final = _squares()
