"""Ask the leader of a stream for one stored message. It is never behind, as a replica that answers a direct get can be.

Owns the form of the question and of the reply. What an error means is decided by the caller.
"""

from collections.abc import Mapping

import msgspec

from roundlog.client.api import ApiError, ask_api
from roundlog.client.connection import Connection


class StoredMessage(msgspec.Struct):
    """A message of a stream."""

    subject: str
    seq: int
    data: bytes = b""  # base64 on the wire, which msgspec decodes
    hdrs: bytes = b""  # the header block, in the same form


class LeaderReply(msgspec.Struct):
    """Either a message or the reason why there is none."""

    message: StoredMessage | None = None
    error: ApiError = ApiError()


async def ask_leader(connection: Connection, stream: str, request: Mapping[str, object]) -> LeaderReply:
    """Get the message that `request` describes, such as ``{"last_by_subj": subject}``.

    Raises:
        NoResponders: No JetStream, or a cluster without a leader.
        LogUnavailable: No answer in time, or the connection is lost.
    """
    return await ask_api(connection, f"STREAM.MSG.GET.{stream}", request, LeaderReply)
