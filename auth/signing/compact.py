"""Read and write the compact form of a JWS: ``header.payload.signature``. Pure.

Owns the form alone: three parts in base64url, two JSON objects. A token has one spelling and each member once, so that
no two readers of it understand different things (RFC 8725 section 2.4, RFC 8259 section 4). Does not check signatures
or claims.
"""

import binascii
import json
from functools import lru_cache
from typing import Any, Final, NamedTuple

JsonObject = dict[str, Any]

_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/!!!")  # '!' is in no base64, so these are refused
_FROM_BASE64: Final = bytes.maketrans(b"+/", b"-_")


class MalformedToken(ValueError):
    """The text is not a JWS in its compact form. Holds no part of it."""


class Compact(NamedTuple):
    """A token, taken apart. Nothing in it has been verified."""

    header: JsonObject
    payload: bytes
    signed: bytes  # the bytes that the signature is of
    signature: bytes


def read_compact(token: str, *, longest: int) -> Compact:
    """Take a token apart.

    Args:
        token: The token.
        longest: The most characters; checked before anything is decoded.

    Raises:
        MalformedToken: It is longer, has another form, or its header is not a JSON object that has each member once.
    """
    if len(token) > longest or not token.isascii():
        raise MalformedToken
    parts = token.encode().split(b".")
    if len(parts) != 3:  # five are an encrypted token
        raise MalformedToken
    header, payload, signature = map(_decoded, parts)
    return Compact(_header(header), payload, b"%b.%b" % (parts[0], parts[1]), signature)


def encoded(data: bytes) -> bytes:
    """Return `data` in base64url without padding: RFC 7515 section 2."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_FROM_BASE64)


def read_object(data: bytes) -> JsonObject:
    """Read a JSON object; raise `MalformedToken` when it is none, or has a member twice at any depth."""
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise MalformedToken from None
    if not isinstance(value, dict):
        raise MalformedToken
    return value


@lru_cache(64)  # all tokens of a key have the same
def _header(header: bytes) -> JsonObject:
    return read_object(header)


def _decoded(part: bytes) -> bytes:
    text = part.translate(_TO_BASE64) + b"=" * (-len(part) % 4)
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise MalformedToken from None
    if text[-4:] != binascii.b2a_base64(data[-(len(data) % 3 or 3) :], newline=False)[-4:]:
        raise MalformedToken  # bits after the last byte, which are ignored: another spelling of the same bytes
    return data


def _once(members: list[tuple[str, Any]]) -> JsonObject:
    found = dict(members)
    if len(found) != len(members):
        raise MalformedToken
    return found


def _refuse_constant(_name: str) -> None:
    raise MalformedToken  # NaN and Infinity are not JSON


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)
