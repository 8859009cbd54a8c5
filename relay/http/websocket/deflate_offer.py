"""What is agreed on the compression of a WebSocket: the offers of a client in, the answer out. Pure.

Owns the negotiation of permessage-deflate (RFC 7692 section 7.1). A client that does not ask for the opposite keeps the
window of the server's messages, which are then a fifth of the size. Of the client no window is kept.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

_WINDOW_BITS: Final = 15
_LEAST_WINDOW_BITS: Final = 9  # zlib makes no raw stream with 8
_NO_SERVER_WINDOW: Final = "server_no_context_takeover"
_NO_CLIENT_WINDOW: Final = "client_no_context_takeover"


class Deflate(NamedTuple):
    """What was agreed on."""

    extension: str  # of the answer's Sec-WebSocket-Extensions
    window_bits: int  # of the server's messages; 0: they are not compressed
    keeps_window: bool  # the client keeps that window between messages


NO_DEFLATE: Final = Deflate("", 0, False)


class _Asked(NamedTuple):
    """What an offer asks of the server."""

    window_bits: int  # 0: nothing
    no_window: bool


def agree(offers: Iterable[str]) -> Deflate:
    """Accept the first acceptable offer of permessage-deflate; `offers`: the elements of Sec-WebSocket-Extensions."""
    for offer in offers:
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() != "permessage-deflate":
            continue
        asked = _asked(parameters)
        if asked is not None:
            extension = f"permessage-deflate; {_NO_SERVER_WINDOW}; " if asked.no_window else "permessage-deflate; "
            extension += _NO_CLIENT_WINDOW
            # RFC 7692 section 7.1.2.1: only a client that offers the parameter is sure to understand it.
            if asked.window_bits:
                extension += f"; server_max_window_bits={asked.window_bits}"
            return Deflate(extension, asked.window_bits or _WINDOW_BITS, not asked.no_window)
    return NO_DEFLATE


def _asked(parameters: list[str]) -> _Asked | None:
    """Return what an offer asks of the server; None when it must be declined."""
    window_bits = 0
    seen: set[str] = set()
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        value = value.strip('"')
        if name in seen:
            return None
        seen.add(name)
        if name in (_NO_SERVER_WINDOW, _NO_CLIENT_WINDOW):
            if equals:
                return None
        elif name == "client_max_window_bits":
            if equals and not _is_window(value, least=8):  # any window of the client can be inflated
                return None
        elif name == "server_max_window_bits" and _is_window(value, least=_LEAST_WINDOW_BITS):
            window_bits = int(value)
        else:
            return None
    return _Asked(window_bits, _NO_SERVER_WINDOW in seen)


def _is_window(text: str, *, least: int) -> bool:
    return text.isascii() and text.isdigit() and not text.startswith("0") and least <= int(text) <= _WINDOW_BITS
