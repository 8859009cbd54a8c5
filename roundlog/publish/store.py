"""Store single messages, each with a request of its own.

Owns the form of the stream's answer. Rounds go through `roundlog.publish.publish_connection`.
"""

from collections.abc import Mapping

import msgspec

from roundlog.client.api import ApiError, decoded
from roundlog.client.connection import Connection


class StoreReply(msgspec.Struct):
    """The stream's answer to a message: its sequence, or an error."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


async def store(
    connection: Connection, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
) -> StoreReply:
    """Store one message in the stream that has this subject, and wait for its ack.

    Raises:
        NoResponders: No stream has the subject, or it has no leader at the moment. Nothing was stored.
        LogUnavailable: No answer in time, or the connection is lost. The message may have been stored.
    """
    return decoded(await connection.request(subject, data, headers=headers), StoreReply)
