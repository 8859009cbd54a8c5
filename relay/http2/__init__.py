"""HTTP/2: connections, streams, flow control and limits for hostile peers, for any service.

A `Http2Protocol` is one connection, a `Http2Stream` one request and its answer; `Http2Connections` keeps time for all
connections of a port. A `Http2Service` answers requests. Knows no gRPC, no rounds and no keys.
Why: docs/adr/0041-an-http2-engine-of-our-own.md
"""

from relay.http2.data_batch import DataBatch
from relay.http2.header_blocks import HeaderFields
from relay.http2.http2_connections import Fault, Http2Connections
from relay.http2.http2_frames import Http2Code
from relay.http2.http2_limits import Http2Limits
from relay.http2.http2_protocol import Http2Protocol
from relay.http2.http2_stream import Http2Service, Http2Stream, StreamReceiver
from relay.http2.peer_budget import FaultReason

__all__ = [
    "DataBatch",
    "Fault",
    "FaultReason",
    "HeaderFields",
    "Http2Code",
    "Http2Connections",
    "Http2Limits",
    "Http2Protocol",
    "Http2Service",
    "Http2Stream",
    "StreamReceiver",
]
