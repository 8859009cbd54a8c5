"""What the headers of a call say, and how statuses and metadata are written as headers. Pure.

Owns names and values: the path, ``grpc-timeout``, ``grpc-encoding``, binary metadata, percent-encoded messages.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

from multidict import CIMultiDict

from relay.errors import BadRequest
from relay.http2 import HeaderFields
from relay.rpc.calls.inflate import WINDOWS
from relay.rpc.status import Metadata, Status, StatusError
from relay.rpc.status_code import StatusCode

Pairs = Iterable[tuple[str, str | bytes]]
"""Names and values of metadata; a name that ends with ``-bin`` has bytes."""

_CONTENT_TYPES: Final = (b"application/grpc", b"application/grpc+proto")
ACCEPTED: Final = ",".join(("identity", *WINDOWS))
_ACCEPTS: Final = ("grpc-accept-encoding", ACCEPTED)
_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_ESCAPED: Final = re.compile(rb"[^ -$&-~]")
_BINARY: Final = "-bin"
_OK_HEAD: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_HEAD: Final = (*_OK_HEAD, (b"grpc-accept-encoding", ACCEPTED.encode()))


class NoCall(Exception):
    """A request that is no gRPC call: answered with an HTTP status, and a status of gRPC that says why."""

    def __init__(self, http_status: int, sentence: str) -> None:
        super().__init__(http_status, sentence)
        self.http_status, self.sentence = http_status, sentence

    @property
    def fields(self) -> HeaderFields:
        """The answer, which ends with them."""
        status = Status(StatusCode.INVALID_ARGUMENT, self.sentence)
        return ((b":status", b"%d" % self.http_status), *_OK_HEAD[1:], *trailer_fields(status))


class CallHead(NamedTuple):
    """The headers of one call."""

    path: str
    metadata: CIMultiDict[str]
    """As text: also of names that end with ``-bin``, whose values are base64."""
    timeout_s: float | None
    encoding: str  # of compressed messages; "identity" for none

    @classmethod
    def read(cls, headers: HeaderFields) -> Self:
        """Read the headers of a request.

        Raises:
            NoCall: It is not a gRPC call.
            BadRequest: A value is malformed.
            StatusError: Its encoding is not supported.
        """
        path, method, kind = "", b"", b""
        metadata = CIMultiDict[str]()
        for name, value in headers:
            if name == b":path":
                path = value.decode("latin-1")
            elif name == b":method":
                method = value
            elif name == b"content-type":
                kind = value
            elif not name.startswith(b":"):
                metadata.add(name.decode("latin-1"), value.decode("latin-1"))
        if method != b"POST":
            raise NoCall(405, f"method {method[:20].decode('latin-1')} is not supported; calls are POST")
        if kind.partition(b";")[0].strip().lower() not in _CONTENT_TYPES:
            shown = kind[:80].decode("latin-1") or "no content-type"
            raise NoCall(415, f"{shown} is not supported here; send application/grpc")
        timeout = metadata.get("grpc-timeout")
        return cls(
            path,
            metadata,
            None if timeout is None else timeout_s(timeout, "grpc-timeout"),
            _encoding(metadata.get("grpc-encoding", "identity")),
        )

    def binary(self, name: str) -> bytes | None:
        """Return the value of binary metadata, the first of several; None when there is none.

        Raises:
            BadRequest: It is not base64.
        """
        value = self.metadata.get(name)
        return None if value is None else _from_base64(name, value.partition(",")[0])


def timeout_s(text: str, name: str) -> float:
    """Read a timeout of gRPC in seconds; raise `BadRequest`, with the name of its header, when it is malformed."""
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise BadRequest(f"{name} {text[:40]!r} is not at most 8 digits and one of {', '.join(_UNITS_S)}")
    return int(found[1]) * _UNITS_S[found[2]]


def _encoding(text: str) -> str:
    if text == "identity" or text in WINDOWS:
        return text
    sentence = f"grpc-encoding {text[:40]!r} is not supported; send one of {ACCEPTED}"
    raise StatusError(Status(StatusCode.UNIMPLEMENTED, sentence, (_ACCEPTS,), "unsupported"))


def head_fields(metadata: Metadata = ()) -> HeaderFields:
    """Render the headers of an answer: its initial metadata."""
    return (*_HEAD, *_fields(metadata)) if metadata else _HEAD


def trailer_fields(status: Status) -> HeaderFields:
    """Render the trailers of an answer: its status, with metadata."""
    fields = [(b"grpc-status", b"%d" % status.code)]
    if status.message:
        fields.append((b"grpc-message", percent_encoded(status.message)))
    return (*fields, *_fields(status.trailers))


def only_trailers(status: Status) -> HeaderFields:
    """Render an answer that has nothing but a status."""
    return (*_OK_HEAD, *trailer_fields(status))


def percent_encoded(text: str) -> bytes:
    """Encode a status message."""
    return _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], text.strip().encode("utf-8", "replace"))


def _fields(metadata: Pairs) -> Iterable[tuple[bytes, bytes]]:
    for name, value in metadata:
        if isinstance(value, bytes) and name.endswith(_BINARY):
            yield name.encode(), base64.b64encode(value).rstrip(b"=")
        else:
            yield name.encode(), value.encode() if isinstance(value, str) else value


def _from_base64(name: str, text: str) -> bytes:
    """Decode base64 with padding or without."""
    try:
        stripped = text.strip().rstrip("=")
        return base64.b64decode(stripped + "=" * (-len(stripped) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"metadata {name[:40]} is not base64") from error
