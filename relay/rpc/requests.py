"""Read the request message of a gRPC call, within a time.

A handler of grpc.aio for one request is not called before the message is there, and waits for it without limit. So all
methods are handlers of streams of requests, which are called at once, and read their message here.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from grpc import aio

from relay.errors import BadRequest, SlowRequest

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]


async def next_request(context: "Context", *, within_s: float) -> Any:
    """Return the next message of a call, `grpc.aio.EOF` after the last one.

    Raises:
        SlowRequest: It has not arrived within `within_s` seconds.
    """
    try:
        async with asyncio.timeout(within_s):
            return await context.read()
    except TimeoutError as error:
        raise SlowRequest(within_s) from error


async def only_request(context: "Context", *, within_s: float) -> Any:
    """Return the message of a call of a method with one request; more are ignored.

    Raises:
        SlowRequest: It has not arrived within `within_s` seconds.
        BadRequest: The call has none.
    """
    message = await next_request(context, within_s=within_s)
    if message is aio.EOF:
        raise BadRequest("the call has no request message")
    return message
