"""``Expect: 100-continue`` (RFC 9110 section 10.1.1): the body is asked for only when it will be read.

aiohttp would ask for it before the path and the credential of the request are known. So it does not get to see the
header: `hide` leaves it only in the raw headers of a request.
"""

from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from relay.errors import TooLarge
from relay.http.connections.guarded import is_unwanted, read_body

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_EXPECT: Final = b"expect"


def hide(message: RawRequestMessage) -> RawRequestMessage:
    """Return a request that aiohttp reads as one without expectations."""
    headers = CIMultiDict(message.headers)
    del headers[hdrs.EXPECT]
    return message._replace(headers=CIMultiDictProxy(headers))


def has_unknown(request: web.BaseRequest) -> bool:
    """Whether a request has another expectation than 100-continue, which a server may refuse."""
    return bool(_expectations(request) - {b"100-continue"})


def awaits_continue(request: web.BaseRequest) -> bool:
    """Whether the client has sent nothing of the body: it waits to be asked for it, and may never send it."""
    return not request.content.is_eof() and not request.content.total_bytes and bool(_expectations(request))


async def read_expected_body(request: web.BaseRequest, limit: int) -> bytearray:
    """Ask for a body if the client waits for that, and read it. Raises as `read_body`."""
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(limit)
    if awaits_continue(request):
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # it is no part of the answer
    return await read_body(request, limit)


def closes_connection(request: web.BaseRequest) -> bool:
    """Whether no other request can follow a request that has been answered."""
    # What follows would be either its body or the next request; nobody can know.
    return is_unwanted(request) or awaits_continue(request)


def _expectations(request: web.BaseRequest) -> set[bytes]:
    if len(request.raw_headers) == len(request.headers) or request.version < HttpVersion11:  # `hide` made it shorter
        return set()
    values = b",".join(value for name, value in request.raw_headers if name.lower() == _EXPECT)
    return {value for element in values.split(b",") if (value := element.strip().lower())}
