"""How hard a shared secret is to guess, estimated from its text. Pure.

A token shows everything that is needed to test guesses of its secret offline, so length alone protects nothing. The
estimate finds what people type and examples hold: repeats, sequences, known words, and these in hex or base64. It is an
upper bound: no estimate can find that random text is public.
"""

import base64
import math
from collections import Counter
from contextlib import suppress
from typing import Final

ENOUGH_BITS: Final = 64
"""32 random bytes are estimated at 140 or more in any form, 16 of them in hex at 70, and repeats of a word at 40."""

_SHORTEST_REPEAT: Final = 4
"""Shorter ones are frequent in random text."""
_LONGEST: Final = 4096  # characters that are looked at: the search is quadratic
_KNOWN: Final = (
    "qwertyuiopasdfghjklzxcvbnm1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p|azertyuiop|qwertz|letmein|admin|root|user|login|"
    "password|passw0rd|passphrase|secret|s3cret|super|token|signing|signature|change|changeme|default|example|sample|"
    "test|demo|dummy|placeholder|replace|insert|your|this|that|with|here|very|long|strong|enough|random|string|text|"
    "this-is-the-|this_is_the_|this is the |this-is-my-|this-is-a-|value|phrase|"
    "something|minimum|least|characters|chars|bytes|bits|hash|hmac|sha256|hs256|jwt|auth|"
    "private|public|secure|security|safe|never|share|production|prod|staging|development|local|server|service|client|"
    "stream-relay|stream_relay|streamrelay|relay|datastream|sk_live_|pk_live_|sk_test_|pk_test_|key-|_key|mykey|"
    "correct|horse|battery|staple|deadbeef|cafebabe|feedface|baadf00d|foobar|lorem ipsum|2023|2024|2025|2026|2027|"
    "3f9c0a7e5b1d4e8f2a6c9b0d7e3f1a5c8b2d6e9f0a4c7b1d5e8f2a3c6b9d0e7f|"
    "8b2c4d1f0a9e7c6b5d3f2e1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c|"
    "1c2b3a4f5e6d7c8b9a0f1e2d3c4b5a6f7e8d9c0b1a2e3f5d6b7c9e0a1f4d2c8b"
)
"""Words of passwords and of examples; the last are those of docs/auth.md."""


def strength_bits(secret: bytes) -> float:
    """Return the estimate in bits: that of the text, or of what it holds in hex or base64 if that is less."""
    text = secret[:_LONGEST]
    inner = (_bits(inner) if _is_text(inner) else 8.0 * _novel(inner) for inner in _decodings(text))
    return min((_bits(text), *inner))


def _bits(text: bytes) -> float:
    """Estimate text: the entropy of its characters' frequencies, for those that nothing before them predicts."""
    counts = Counter(text)
    total = len(text) or 1
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())
    return entropy * _novel(text.lower())


def _novel(text: bytes) -> int:
    """Count the characters that are part of no repeat, known word or sequence; each of these counts as one."""
    seen = _KNOWN.encode() + b"|"
    seen += seen[::-1] + text
    start = len(seen) - len(text)
    found, at = 0, 0
    while at < len(text):
        found += 1
        length = _SHORTEST_REPEAT
        if len(text) - at >= length and seen.find(text[at : at + length], 0, start + at + length - 1) >= 0:
            while at + length < len(text) and (seen.find(text[at : at + length + 1], 0, start + at + length) >= 0):
                length += 1
        else:
            length = 1
        at += max(length, _sequence(text, at))
    return found


def _sequence(text: bytes, at: int) -> int:
    """Return the length of the sequence at a place, such as ``2468`` or ``dcba``; 1 when there is none."""
    if at + 1 >= len(text):
        return 1
    step = text[at + 1] - text[at]
    end = at + 2
    while end < len(text) and text[end] - text[end - 1] == step:
        end += 1
    return end - at if end - at >= _SHORTEST_REPEAT else 1


def _decodings(text: bytes) -> list[bytes]:
    """Return what `text` is in hex and base64, where it can be read as such."""
    found = []
    bare = text.strip()
    with suppress(ValueError):
        found.append(bytes.fromhex(bare.decode()))
    with suppress(ValueError):
        padded = bare.rstrip(b"=")
        found.append(base64.b64decode(padded.translate(_URL_SAFE) + b"=" * (-len(padded) % 4), validate=True))
    return [inner for inner in found if inner]


_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def _is_text(data: bytes) -> bool:
    return all(32 <= byte < 127 for byte in data)
