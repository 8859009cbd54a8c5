"""Ask the JetStream API: one request, one typed reply.

Owns the encoding of requests and the form of errors. What an error means is decided by the caller.
https://docs.nats.io/reference/reference-protocols/nats_api_reference#jetstream-api
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from roundlog.client.connection import Connection
from roundlog.log_errors import LogUnavailable

T = TypeVar("T")


class ApiError(msgspec.Struct, frozen=True):
    """Why the server did not do what the request asked for."""

    code: int = 0  # like an HTTP status
    err_code: int = 0  # a `roundlog.client.codes.ErrorCode`, or one that is not named there
    description: str = "no reason given"


async def ask_api(connection: Connection, call: str, body: Mapping[str, object] | None, reply: type[T]) -> T:
    """Call ``$JS.API.<call>`` and return its reply as `reply`, which should have a field for an `ApiError`.

    Raises:
        NoResponders: No JetStream, or a cluster without a leader.
        LogUnavailable: No answer in time, or the connection is lost.
    """
    answer = await connection.request(f"$JS.API.{call}", b"" if body is None else msgspec.json.encode(body))
    return decoded(answer, reply)


def decoded(answer: bytes, reply: type[T]) -> T:
    """Read a JSON answer.

    Raises:
        LogUnavailable: It has another form. It was not written by nats-server, or not by one that we know.
    """
    try:
        return msgspec.json.decode(answer, type=reply)
    except msgspec.MsgspecError as error:
        raise LogUnavailable(f"NATS gave an answer of another form: {error}") from error
