"""The opening handshake of a WebSocket: headers in, headers out. Pure.

Owns RFC 6455 section 4.2. What is agreed on compression is in `deflate_offer`.
"""

import base64
import hashlib
from functools import lru_cache
from typing import Final, NamedTuple

from multidict import MultiMapping

from relay.errors import BadRequest, NeedsUpgrade
from relay.http.websocket.deflate_offer import NO_DEFLATE, Deflate, agree

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"
_USUAL_OFFER: Final = 200
"""Characters of the longest offer of compression whose answer is remembered."""


class Handshake(NamedTuple):
    """The result of a handshake."""

    headers: dict[str, str]  # of the answer, 101
    window_bits: int  # of the server's frames; 0: no compression
    keeps_window: bool = False  # the client keeps the window of the server's frames between them


def check_upgrade(headers: MultiMapping[str]) -> None:
    """Raise `NeedsUpgrade` when a request is no WebSocket handshake.

    ``Upgrade`` is a list: of what a client offers, the server chooses (RFC 9110 section 7.8).
    """
    if not _lists(headers, "Upgrade", "websocket"):
        raise NeedsUpgrade


def shake_hands(headers: MultiMapping[str], *, subprotocol: str | None, compresses: bool = True) -> Handshake:
    """Answer a client's handshake; `subprotocol` is the one that is selected, `compresses`: when the client offers it.

    Raises:
        NeedsUpgrade: Its version is not 13.
        BadRequest: It is malformed.
    """
    version = _single(headers, "Sec-WebSocket-Version")
    if version is None:
        raise BadRequest("Sec-WebSocket-Version is missing; it must be 13")
    if version != _VERSION:
        raise NeedsUpgrade
    if not _lists(headers, "Connection", "upgrade"):
        connection = _elements(headers, "Connection")
        raise BadRequest(f"Connection {', '.join(connection)[:40]!r} has no upgrade, which a handshake needs")
    key = _single(headers, "Sec-WebSocket-Key") or ""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise BadRequest(f"Sec-WebSocket-Key {key[:40]!r} is not 16 bytes in base64")
    except ValueError as error:  # also of characters that are not ASCII
        raise BadRequest(f"Sec-WebSocket-Key {key[:40]!r} is not 16 bytes in base64") from error
    # RFC 6455 section 4.2.2: SHA-1 shows that this is a WebSocket server; it is no protection.
    accept = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    answer = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(accept).decode("ascii"),
    }
    if subprotocol is not None:
        answer["Sec-WebSocket-Protocol"] = subprotocol
    deflate = _agreed(",".join(headers.getall("Sec-WebSocket-Extensions", ()))) if compresses else NO_DEFLATE
    if deflate.extension:
        answer["Sec-WebSocket-Extensions"] = deflate.extension
    return Handshake(answer, deflate.window_bits, deflate.keeps_window)


def _elements(headers: MultiMapping[str], name: str) -> list[str]:
    """Return the elements of a header that is a list.

    Several lines are one list (RFC 9110 section 5.3), and empty elements are ignored (section 5.6.1).
    """
    return _split(",".join(headers.getall(name, ())))  # not `get`: it finds one line


def _split(lines: str) -> list[str]:
    if '"' in lines:
        parts = lines.split('"')
        parts[1::2] = [quoted.replace(",", " ") for quoted in parts[1::2]]  # no value that is valid here has a comma
        lines = '"'.join(parts)
    return [element for piece in lines.split(",") if (element := piece.strip())]


def _lists(headers: MultiMapping[str], name: str, element: str) -> bool:
    """Whether a header that is a list has an element, in any case."""
    if headers.get(name, "").lower() == element:  # nearly always
        return True
    return element in {given.lower() for given in _elements(headers, name)}


def _agreed(offers: str) -> Deflate:
    """Return what is agreed on for all lines of the header."""
    return NO_DEFLATE if not offers else _agree(offers) if len(offers) <= _USUAL_OFFER else agree(_split(offers))


@lru_cache(256)  # most clients are of few kinds
def _agree(offers: str) -> Deflate:
    return agree(_split(offers))


def _single(headers: MultiMapping[str], name: str) -> str | None:
    """Return the value of a header that must not occur twice (RFC 6455 section 11.3); the same one twice is one."""
    given = headers.getall(name, ())
    if len(given) == 1:
        return given[0].strip()
    values = {value.strip() for value in given}
    if len(values) > 1:
        raise BadRequest(f"{name} is given with {len(values)} different values; a handshake has one")
    return values.pop() if values else None
