"""Ask the leader of a stream for one stored message: it is never behind, as a replica that answers a direct get can be.

Owns how the question is put and how the answer looks. What an error means is for whoever asks.
https://docs.nats.io/reference/reference-protocols/nats_api_reference#jetstream-api
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from nats.aio.client import Client

NO_MESSAGE: Final = 10037
"""The stream has no message as it was asked for."""
NO_STREAM: Final = 10059
_ANSWER_S: Final = 5.0


class Stored(msgspec.Struct):
    """A stored message."""

    subject: str
    seq: int
    data: bytes = b""  # comes in base64, which msgspec reads


class Fault(msgspec.Struct, frozen=True):
    """Why there is none."""

    code: int = 0
    err_code: int = 0
    description: str = "no reason given"


class Answer(msgspec.Struct):
    """One of the two."""

    message: Stored | None = None
    error: Fault = Fault()


async def ask_leader(nc: Client, stream: str, request: Mapping[str, object]) -> Answer:
    """Get the message that `request` names, such as ``{"last_by_subj": subject}``.

    Raises:
        nats.errors.Error: No answer in time (a `TimeoutError` too), nobody to answer, or the connection broke.
    """
    body = msgspec.json.encode(request)
    reply = await nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", body, timeout=_ANSWER_S)
    return msgspec.json.decode(reply.data, type=Answer)
