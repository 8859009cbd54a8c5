"""Whether an error means that a client has left. Knows nothing of what is then done."""

from typing import Final

import aiohttp
from aiohttp import web

_CLOSED: Final = "the handler is closed"


def has_left(request: web.BaseRequest, error: BaseException) -> bool:
    """Whether `error` was raised because the client of `request` has left: then it is no bug of ours.

    aiohttp and asyncio raise an error of the system or of aiohttp where a closed connection is used, and uvloop a
    `RuntimeError` that only its text distinguishes from others.
    """
    if isinstance(error, RuntimeError) and _CLOSED in str(error):
        return True
    transport = request.transport
    is_gone = transport is None or transport.is_closing()
    return is_gone and isinstance(error, OSError | web.RequestPayloadError | aiohttp.ClientError)
