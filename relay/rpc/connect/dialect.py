"""The encodings of the service over plain HTTP: Connect with JSON or protobuf, gRPC-Web as binary or text. Pure.

Owns content types, envelopes, codes, the last message of a stream, and error bodies.
https://connectrpc.com/docs/protocol and https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo

from relay.live.encode import ByteStream, Renderable, chunk
from relay.rpc.answer_forms import JSON, PROTO, AnswerForm
from relay.rpc.connect.json_request import from_json
from relay.rpc.convert import parse_message
from relay.rpc.status import Status
from relay.rpc.status_code import StatusCode
from relay.rpc.wire import batch_json, round_bytes, round_json, stored_entries, stored_json
from roundlog.entry import LogEntry

_END: Final = 0x02  # Connect: the last envelope of a stream
_TRAILERS: Final = 0x80  # gRPC-Web: the frame with the status
COMPRESSED: Final = 0x01

_HTTP_STATUS: Final = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.UNAUTHENTICATED: 401,
}


def envelope(message: bytes, flags: int = 0) -> bytes:
    """Prefix a message with flags and length: the same five bytes in Connect and gRPC-Web."""
    return struct.pack("!BI", flags, len(message)) + message


@dataclass(frozen=True, slots=True)
class Dialect:
    """One encoding of the service over HTTP, and its content type."""

    content_type: str
    streams: bool  # for streaming methods; in gRPC-Web for all methods
    web: bool  # gRPC-Web; else Connect
    text: bool = False  # bodies are base64

    @property
    def is_json(self) -> bool:
        return self.content_type.endswith("json")

    @property
    def read(self) -> Callable[[bytes, type[Message]], Message]:
        return from_json if self.is_json else parse_message

    @property
    def answers(self) -> AnswerForm:
        return JSON if self.is_json else PROTO

    @property
    def write_stored(self) -> Callable[[str, Sequence[LogEntry]], list[bytes]]:
        """Renders stored rounds as elements of a batch."""
        return stored_json if self.is_json else stored_entries

    @property
    def write_batch(self) -> Callable[[Sequence[bytes]], bytes]:
        """Joins such elements to a ``RoundBatch``."""
        return batch_json if self.is_json else b"".join

    def wrap(self, message: bytes) -> bytes:
        """Make an element of a stream from a message in this dialect."""
        return self._on_wire(envelope(message))

    def end(self, status: Status) -> bytes:
        """Make the last element of a stream, with its status."""
        if self.web:
            lines = [f"grpc-status: {status.code.value}", f"grpc-message: {quote(status.message)}"]
            lines += [f"{name}: {value}" for name, value in status.trailers]
            return self._on_wire(envelope("".join(f"{line}\r\n" for line in lines).encode(), _TRAILERS))
        end: dict[str, Any] = {"metadata": {name: [value] for name, value in status.trailers}}
        if status.code is not StatusCode.OK:
            end["error"] = error_of(status)
        return envelope(msgspec.json.encode(end), _END)

    def _on_wire(self, data: bytes) -> bytes:
        return base64.b64encode(data) if self.text else data


def error_of(status: Status) -> dict[str, Any]:
    """Render a status as an error of Connect: code, message, and our stable reason as a detail."""
    info = ErrorInfo(reason=status.reason, domain="stream-relay", metadata=dict(status.trailers))
    detail = {
        "type": ErrorInfo.DESCRIPTOR.full_name,
        "value": base64.b64encode(info.SerializeToString()).decode().rstrip("="),
        "debug": {"reason": status.reason, "domain": "stream-relay", "metadata": dict(status.trailers)},
    }
    code = status.code.name.lower().replace("cancelled", "canceled")
    return {"code": code, "message": status.message, "details": [detail]}


def http_status_of(code: StatusCode) -> int:
    return _HTTP_STATUS.get(code, 500)


@dataclass(frozen=True, slots=True)
class EnvelopedRound(ByteStream):
    """A round as an element of a stream in one dialect; an HTTP/1.1 chunk unless the client uses HTTP/1.0."""

    dialect: Dialect
    chunked: bool

    def render(self, item: Renderable) -> bytes:
        data = (round_json if self.dialect.is_json else round_bytes)(item.round, item.cursor)
        data = self.dialect.wrap(data)
        return chunk(data) if self.chunked else data


CONNECT_JSON: Final = Dialect("application/json", streams=False, web=False)
CONNECT_PROTO: Final = Dialect("application/proto", streams=False, web=False)
_ALL: Final = (
    CONNECT_JSON,
    CONNECT_PROTO,
    Dialect("application/connect+json", streams=True, web=False),
    Dialect("application/connect+proto", streams=True, web=False),
    Dialect("application/grpc-web", streams=True, web=True),
    Dialect("application/grpc-web+proto", streams=True, web=True),
    Dialect("application/grpc-web-text", streams=True, web=True, text=True),
    Dialect("application/grpc-web-text+proto", streams=True, web=True, text=True),
)
DIALECTS: Final = {dialect.content_type: dialect for dialect in _ALL}


def accepted(*, streams: bool) -> tuple[str, ...]:
    """Return the content types of streaming methods, or of unary ones."""
    return tuple(name for name, dialect in DIALECTS.items() if dialect.web or dialect.streams is streams)
