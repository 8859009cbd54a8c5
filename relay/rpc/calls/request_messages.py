"""Cut the messages of a request from its bytes, however they are split. Does no I/O.

Each message has a byte that says whether it is compressed, and four bytes of length.
"""

from collections.abc import Iterator
from typing import Final

from relay.errors import BadRequest, TooLarge
from relay.rpc.calls.inflate import decompressed
from relay.rpc.status import Status, StatusError
from relay.rpc.status_code import StatusCode

PREFIX_BYTES: Final = 5
_NOT_COMPRESSED: Final = b"\0"


def prefixed(message: bytes) -> bytes:
    """Put the prefix of a message, which is not compressed, before it."""
    return _NOT_COMPRESSED + len(message).to_bytes(4, "big") + message


def message_end(data: bytes, at: int) -> int:
    """Return where the message ends that `at` is in, or begins; `data` is a sequence of whole ones with prefixes."""
    end = 0
    while end < at:
        end += PREFIX_BYTES + int.from_bytes(data[end + 1 : end + PREFIX_BYTES], "big")
    return end


class RequestMessages:
    """The messages of one request. Holds no more than one that is not complete."""

    __slots__ = ("_encoding", "_held", "_limit")

    def __init__(self, encoding: str, limit: int) -> None:
        """`encoding`: that of compressed messages; `limit`: bytes of a message, decompressed."""
        self._encoding = encoding
        self._limit = limit
        self._held = bytearray()

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._held)

    def read(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, and yield the messages that are complete.

        Raises:
            BadRequest: A message is malformed.
            TooLarge: A message has more bytes than the limit. Raised as soon as its length is known.
            StatusError: It is compressed, and the request does not say how.
        """
        held = self._held
        held += data
        at = 0
        while len(held) - at >= PREFIX_BYTES:
            flag, size = held[at], int.from_bytes(held[at + 1 : at + PREFIX_BYTES], "big")
            if flag > 1:
                raise BadRequest(f"a message begins with byte {flag}; it is 0, or 1 when the message is compressed")
            if size > self._limit:
                raise TooLarge(self._limit)
            end = at + PREFIX_BYTES + size
            if len(held) < end:
                break
            message = bytes(held[at + PREFIX_BYTES : end])
            at = end
            yield self._decompressed(message) if flag else message
        del held[:at]

    def _decompressed(self, message: bytes) -> bytes:
        if self._encoding == "identity":
            sentence = "a message is compressed, and the call has no grpc-encoding"
            raise StatusError(Status(StatusCode.INTERNAL, sentence, (), "bad_request"))
        return decompressed(message, self._encoding, self._limit)
