"""Compress an answer that is large enough, when the client accepts it."""

import re
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from relay.turns import Turns

_MIN_BYTES: Final = 1024
_PIECE_BYTES: Final = 32 << 10
"""Compressed at a time."""
_GZIP_WINDOW: Final = 31
"""zlib's number of the gzip format, with the largest window."""
_GZIP_LEVEL: Final = 4
_BROTLI_QUALITY: Final = 4
"""Both take 0.5 to 3 ms for 1,000 rounds, the largest answer; more for rounds that differ more: docs/benchmarks.md."""
_WEIGHT: Final = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII)


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


async def compressed(body: bytes, accept_encoding: str, turns: Turns) -> tuple[bytes, str | None]:
    """Return the body to send and its ``Content-Encoding``, the best of what `accept_encoding` allows (RFC 9110)."""
    coding = coding_of(accept_encoding) if len(body) >= _MIN_BYTES else None
    if coding is None:
        return body, None
    compressor, done = _compressor(coding), list[bytes]()
    for at in range(0, len(body), _PIECE_BYTES):
        await turns.wait()
        done.append(compressor.compress(body[at : at + _PIECE_BYTES]))
    return b"".join([*done, compressor.flush()]), coding


def compressed_now(body: bytes, accept_encoding: str) -> tuple[bytes, str | None] | None:
    """Do as `compressed` in the time of one piece; return None where more is needed."""
    coding = coding_of(accept_encoding) if len(body) >= _MIN_BYTES else None
    if coding is None:
        return body, None
    if len(body) > _PIECE_BYTES:
        return None
    compressor = _compressor(coding)
    return compressor.compress(body) + compressor.flush(), coding


def _compressor(coding: str) -> _Compressor:
    if coding == "gzip":
        return zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
    import brotli  # loaded at the first use

    return _Brotli(brotli.Compressor(quality=_BROTLI_QUALITY))


class _Brotli:
    """brotli's compressor with the names of zlib's."""

    def __init__(self, compressor: Any) -> None:
        self.compress: Callable[[bytes], bytes] = compressor.process
        self.flush: Callable[[], bytes] = compressor.finish


def coding_of(accept_encoding: str) -> str | None:
    """Return the best coding that `accept_encoding` allows, ``br`` or ``gzip``; None for no coding."""
    if not accept_encoding:
        return None
    weights = read_weights(accept_encoding)
    if weights.get("br", 0) > 0 and weights["br"] >= weights.get("gzip", 0):
        return "br"
    return "gzip" if weights.get("gzip", weights.get("*", 0)) > 0 else None


def read_weights(accept_encoding: str) -> dict[str, float]:
    """Read the weight of each coding, from 0 (not acceptable) to 1; malformed ones are skipped (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for element in accept_encoding.lower().split(","):
        coding, semicolon, parameter = (part.strip() for part in element.partition(";"))
        weight = _WEIGHT.fullmatch(parameter)
        if coding and (weight or not semicolon):
            weights[coding] = float(weight[1]) if weight else 1.0
    return weights
