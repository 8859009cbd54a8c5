"""The opening handshake of a WebSocket, and its compression: headers in, headers out. Pure.

Owns RFC 6455 section 4.2 and the negotiation of RFC 7692. Frames are shared by many links, so the server never
keeps its window between messages (no context takeover), and requires the same of the client.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from multidict import MultiMapping

from relay.errors import BadRequest, NeedsUpgrade

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"
_WINDOW_BITS: Final = 15
_LEAST_WINDOW_BITS: Final = 9  # zlib makes no raw stream with 8


class Handshake(NamedTuple):
    """The result of a handshake."""

    headers: dict[str, str]  # of the answer, 101
    window_bits: int  # of the server's frames; 0: no compression


def check_upgrade(headers: MultiMapping[str]) -> None:
    """Raise `NeedsUpgrade` when a request is no WebSocket handshake.

    ``Upgrade`` is a list: of what a client offers, the server chooses (RFC 9110 section 7.8).
    """
    if "websocket" not in _lower(_elements(headers, "Upgrade")):
        raise NeedsUpgrade


def shake_hands(headers: MultiMapping[str], *, subprotocol: str | None) -> Handshake:
    """Answer a client's handshake; `subprotocol` is the one that is selected.

    Raises:
        NeedsUpgrade: Its version is not 13.
        BadRequest: It is malformed.
    """
    version = _single(headers, "Sec-WebSocket-Version")
    if version is None:
        raise BadRequest("Sec-WebSocket-Version is missing; it must be 13")
    if version != _VERSION:
        raise NeedsUpgrade
    connection = _elements(headers, "Connection")
    if "upgrade" not in _lower(connection):
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
    window_bits, extension = _compression(_elements(headers, "Sec-WebSocket-Extensions"))
    if extension:
        answer["Sec-WebSocket-Extensions"] = extension
    return Handshake(answer, window_bits)


def _elements(headers: MultiMapping[str], name: str) -> list[str]:
    """Return the elements of a header that is a list.

    Several lines are one list (RFC 9110 section 5.3), and empty elements are ignored (section 5.6.1).
    """
    lines = ",".join(headers.getall(name, ()))  # not `get`: it finds one line
    if '"' in lines:
        parts = lines.split('"')
        parts[1::2] = [quoted.replace(",", " ") for quoted in parts[1::2]]  # no value that is valid here has a comma
        lines = '"'.join(parts)
    return [element for piece in lines.split(",") if (element := piece.strip())]


def _lower(elements: Iterable[str]) -> set[str]:
    return {element.lower() for element in elements}


def _single(headers: MultiMapping[str], name: str) -> str | None:
    """Return the value of a header that must not occur twice (RFC 6455 section 11.3); the same one twice is one."""
    values = {value.strip() for value in headers.getall(name, ())}
    if len(values) > 1:
        raise BadRequest(f"{name} is given with {len(values)} different values; a handshake has one")
    return values.pop() if values else None


def _compression(offers: Iterable[str]) -> tuple[int, str]:
    """Accept the first acceptable offer of permessage-deflate; return the window bits and the answer to it."""
    for offer in offers:
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() != "permessage-deflate":
            continue
        window_bits = _window(parameters)
        if window_bits is not None:
            extension = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            # RFC 7692 section 7.1.2.1: only a client that offers the parameter is sure to understand it.
            if window_bits:
                extension += f"; server_max_window_bits={window_bits}"
            return window_bits or _WINDOW_BITS, extension
    return 0, ""


def _window(parameters: list[str]) -> int | None:
    """Return the window bits that an offer requests of the server, 0 for none; None when it must be declined."""
    window_bits = 0
    seen: set[str] = set()
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        value = value.strip('"')
        if name in seen:
            return None
        seen.add(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if equals:
                return None
        elif name == "client_max_window_bits":
            if equals and not _is_window(value, least=8):  # any window of the client can be inflated
                return None
        elif name == "server_max_window_bits" and _is_window(value, least=_LEAST_WINDOW_BITS):
            window_bits = int(value)
        else:
            return None
    return window_bits


def _is_window(text: str, *, least: int) -> bool:
    return text.isascii() and text.isdigit() and not text.startswith("0") and least <= int(text) <= _WINDOW_BITS
