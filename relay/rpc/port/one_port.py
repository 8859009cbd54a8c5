"""gRPC on the HTTP port: calls over HTTP/2, beside HTTP/1.1 on other connections of the same port.

Owns what is answered to a request over HTTP/2 that is no call of gRPC. Connections are told apart by their first bytes
(`relay.http.protocol`).
"""

from typing import Final

from relay.http.error_body import error_json
from relay.http2 import HeaderFields, Http2Stream, StreamReceiver
from relay.rpc.calls.grpc_calls import GrpcCalls

_GRPC: Final = b"application/grpc"
_BODY: Final = error_json(
    "http_version_not_supported", "over HTTP/2 this port serves gRPC only; send this request over HTTP/1.1"
)
_HEAD: Final = (
    (b":status", b"505"),
    (b"content-type", b"application/json; charset=utf-8"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"cache-control", b"no-store"),
)


class OnePort:
    """The `relay.http2.Http2Service` of the HTTP port."""

    def __init__(self, calls: GrpcCalls) -> None:
        self._calls = calls

    def begin(self, stream: Http2Stream, headers: HeaderFields) -> StreamReceiver:
        """See `relay.http2.Http2Service`."""
        method = kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value
            elif name == b":method":
                method = value
        if kind == _GRPC or kind.startswith((_GRPC + b"+", _GRPC + b";")):
            return self._calls.begin(stream, headers)
        stream.send_headers(_HEAD, ended=method == b"HEAD")
        if method != b"HEAD":
            stream.write(_BODY)
            stream.end()
        return _REFUSED


class _Refused:
    """The receiver of a request that was answered by its headers."""

    def data(self, data: bytes, ended: bool) -> None:
        """Ignore the rest."""

    def lost(self, code: int | None) -> None:
        """Do nothing."""


_REFUSED: Final = _Refused()
