"""Parse what the proxy writes: envelopes, and the ends of streams."""

import asyncio
import json
import struct

import aiohttp
from google.protobuf.message import Message
from grpc import StatusCode

from tests.rpc.caller import CallStatus


def envelope(message: Message | bytes, flags: int = 0) -> bytes:
    data = message.SerializeToString() if isinstance(message, Message) else message
    return struct.pack("!BI", flags, len(data)) + data


async def element(response: aiohttp.ClientResponse) -> tuple[int, bytes]:
    """Read one envelope of a stream: its flags and its message."""
    async with asyncio.timeout(20):
        flags, size = struct.unpack("!BI", await response.content.readexactly(5))
        return flags, await response.content.readexactly(size)


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Parse a whole stream into its elements."""
    found = []
    while data:
        flags, size = struct.unpack_from("!BI", data)
        found.append((flags, data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def end_status(data: bytes) -> CallStatus | None:
    """Read the last envelope of a Connect stream as a status; None for OK."""
    end = json.loads(data)
    trailers = {name: values[0] for name, values in end["metadata"].items()}
    if "error" not in end:
        return None
    code = end["error"]["code"].replace("canceled", "cancelled").upper()
    return CallStatus(StatusCode[code], end["error"].get("message", ""), trailers)
