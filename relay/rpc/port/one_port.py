"""gRPC on the HTTP port: over HTTP/2, calls of gRPC are told apart from other requests by their content type."""

from typing import Final

from relay.http.over_http2.bridge import Bridge
from relay.http2 import HeaderFields, Http2Stream, StreamReceiver
from relay.rpc.calls.grpc_calls import GrpcCalls

_GRPC: Final = b"application/grpc"


class OnePort:
    """The `relay.http2.Http2Service` of one connection to the HTTP port."""

    __slots__ = ("_bridge", "_calls")

    def __init__(self, calls: GrpcCalls, bridge: Bridge) -> None:
        """Answer calls by `calls`, and other requests by `bridge`."""
        self._calls = calls
        self._bridge = bridge

    def begin(self, stream: Http2Stream, headers: HeaderFields) -> StreamReceiver:
        """See `relay.http2.Http2Service`."""
        for name, value in headers:
            if name == b"content-type":
                # Not gRPC-Web, which is served by the proxy. Media types have any case.
                kind = value.lower()
                if kind == _GRPC or kind.startswith((_GRPC + b"+", _GRPC + b";")):
                    return self._calls.begin(stream, headers)
                break
        return self._bridge(stream, headers)
