"""Compress an answer that is large enough, when the client accepts it."""

import gzip
import re
from typing import Final

_MIN_BYTES: Final = 1024
_GZIP_LEVEL: Final = 4
_BROTLI_QUALITY: Final = 4
"""Both take 0.5 to 3 ms for 1,000 rounds, the largest answer; more for rounds that differ more: docs/benchmarks.md."""
_WEIGHT: Final = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII)


def compressed(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """Return the body to send and its ``Content-Encoding``, the best of what `accept_encoding` allows (RFC 9110)."""
    if len(body) < _MIN_BYTES or not accept_encoding:
        return body, None
    weights = read_weights(accept_encoding)
    if weights.get("br", 0) > 0 and weights["br"] >= weights.get("gzip", 0):
        import brotli  # loaded at the first use

        return brotli.compress(body, quality=_BROTLI_QUALITY), "br"
    if weights.get("gzip", weights.get("*", 0)) > 0:
        return gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0), "gzip"
    return body, None


def read_weights(accept_encoding: str) -> dict[str, float]:
    """Read the weight of each coding, from 0 (not acceptable) to 1; malformed ones are skipped (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for element in accept_encoding.lower().split(","):
        coding, semicolon, parameter = (part.strip() for part in element.partition(";"))
        weight = _WEIGHT.fullmatch(parameter)
        if coding and (weight or not semicolon):
            weights[coding] = float(weight[1]) if weight else 1.0
    return weights
