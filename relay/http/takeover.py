"""Take a connection over from aiohttp after its request was read, and give it to a link.

Owns the use of aiohttp's internals, with `relay.http.protocol`, and the check that the installed aiohttp has them. Does
not know what links write. Why: docs/adr/0010-links-leave-aiohttp.md
"""

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import web
from aiohttp.http import HttpRequestParser

from relay.errors import StartError
from relay.http.connections.lingering import leave
from relay.http.early.answer import date
from relay.http.protocol import INTERNALS, HttpProtocol
from relay.http.tested_versions import tested_range
from relay.links.intake import Intake
from relay.links.stream_link import StreamLink

_STATUS: Final = {101: "Switching Protocols", 200: "OK"}

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "RequestHandler": (
        "connection_made",
        "connection_lost",
        "data_received",
        "pause_writing",
        "resume_writing",
        "transport",
        "handle_error",
    ),
    "BaseRequest": ("protocol", "transport", "writer"),
    "AppRunner": ("server",),
}
"""Attributes used here and in `relay.http.protocol` that aiohttp does not document for this use, with `INTERNALS`."""
_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "RequestHandler": ("loop", "access_log", "keepalive_timeout", "auto_decompress", "lingering_time"),
}
"""Keyword arguments that those pass."""
_HANDLE_ERROR: Final = ("self", "request", "status", "exc", "message")
"""All parameters of ``RequestHandler.handle_error``, which `relay.http.protocol` overrides."""


class TakenOver(asyncio.CancelledError):
    """Ends the handler of a request whose connection now belongs to a link.

    A cancellation is the only end of a handler that aiohttp does not answer.
    """


class OnConnection(Protocol):
    """A request, as a plain value or aiohttp's."""

    @property
    def protocol(self) -> Any:
        """The handler of its connection."""


def take_over(request: OnConnection) -> asyncio.Transport:
    """Take a request's connection from its handler; raise `TakenOver` when the client has left.

    The caller makes a link of it without awaiting anything before. A handler of aiohttp then ends with `TakenOver`.
    """
    protocol = request.protocol
    transport: asyncio.Transport | None = protocol.transport
    if transport is None or transport.is_closing():
        raise TakenOver
    intake = transport.get_protocol()
    if isinstance(protocol, HttpProtocol) and isinstance(intake, Intake):
        intake.put_back(protocol.tail)
    leave(protocol)
    return transport


def give_to(link: StreamLink, transport: asyncio.Transport) -> None:
    """Make a link the receiver of what comes from a transport.

    What the client has sent after its request comes first, in a later turn, when the link is set up and has answered.
    """
    intake = transport.get_protocol()
    if not isinstance(intake, Intake):
        raise TypeError(f"the connection is read by a {type(intake).__name__}; make it with `protocol_factory`")
    intake.hand_to(link)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Render the status line and headers of an answer that aiohttp does not write."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    answer = f"HTTP/1.1 {status} {_STATUS[status]}\r\n{lines}Date: {date()}\r\nServer: stream-relay\r\n\r\n"
    return answer.encode("latin-1")


def check_aiohttp(library: Any = web, version: str = aiohttp.__version__) -> None:
    """Check that aiohttp has the internals that this relay uses.

    Raises:
        StartError: It lacks some; the text names them, the installed version and the tested range.
    """
    if missing := list(_missing(library)):
        raise StartError(
            f"aiohttp {version} lacks {', '.join(missing)}, which this relay uses; "
            f"install aiohttp {tested_range('aiohttp')}, which it is tested with"
        )


def _missing(library: Any) -> Iterator[str]:
    for kind, names in _PARTS.items():
        found = getattr(library, kind, None)
        yield from (f"{kind}.{name}" for name in names if not hasattr(found, name))
    for kind, names in _PARAMETERS.items():
        found = getattr(library, kind, None)
        parameters = () if found is None else inspect.signature(found).parameters
        yield from (f"{kind}({name})" for name in names if name not in parameters)
    handler = getattr(library, "RequestHandler", None)
    if library is web:
        yield from (f"RequestHandler.{name}" for name in INTERNALS if not hasattr(handler, name))
        if not hasattr(HttpRequestParser, "message_consumed"):  # has come with the parameter max_msg_queue_size
            yield "HttpRequestParser.message_consumed"
    found = getattr(handler, "handle_error", None)
    if found is not None and tuple(inspect.signature(found).parameters) != _HANDLE_ERROR:
        yield f"RequestHandler.handle_error({', '.join(_HANDLE_ERROR[1:])})"
