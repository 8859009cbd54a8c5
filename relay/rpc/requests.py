"""Read what a gRPC call comes with: its request message, within a time, and who sends it.

A handler of grpc.aio for one request is not called before the message is there, and waits for it without limit. So all
methods are handlers of streams of requests, which are called at once, and read their message here.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from grpc import aio

from relay.admission.caller import Caller
from relay.config.trusted_proxies import TrustedProxies
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


def caller_of_call(context: "Context", proxies: TrustedProxies) -> Caller:
    """Return who sends a call."""
    caller = Caller.of_peer(context.peer() or "", _listed(context, "user-agent"))
    if not proxies.trusts(caller.address):
        return caller
    forwarded_for, forwarded = _listed(context, "x-forwarded-for"), _listed(context, "forwarded")
    return caller._replace(address=proxies.client(caller.address, forwarded_for, forwarded))


def _listed(context: "Context", name: str) -> str:
    """Return all values of a name, joined by commas."""
    return ",".join(str(value) for key, value in context.invocation_metadata() or () if key == name)
