"""The gRPC calls of a port: which method a request is for, and how many calls are open.

Owns what is answered before a method is asked: requests that are no calls, methods that do not exist, headers that are
too large, too many calls. Methods are functions by path; rooms add theirs.
"""

from collections.abc import Callable, Mapping

from auth.redact import redact
from relay.errors import TooManyCalls, Unsupported
from relay.http2 import HeaderFields, Http2Stream, StreamReceiver
from relay.rpc.calls.call_head import CallHead, NoCall, only_trailers
from relay.rpc.calls.grpc_call import Begin, GrpcCall
from relay.rpc.calls.late_answer import LateAnswer
from relay.rpc.status import Status, StatusError, status_of
from relay.rpc.status_code import StatusCode


class GrpcCalls:
    """The `relay.http2.Http2Service` of all methods."""

    def __init__(
        self,
        methods: Mapping[str, Begin],
        *,
        request_bytes: int,
        header_bytes: int,
        most: int,
        retry_ms: Callable[[], int],
    ) -> None:
        """Serve methods.

        Args:
            methods: Their handlers, by path such as ``/package.Service/Method``.
            request_bytes: Size of the largest request message, decompressed.
            header_bytes: Size of the largest metadata.
            most: Calls at a time that are not answered; links do not count.
            retry_ms: Draws when a client of one too many may call again.
        """
        self.open = 0
        """Calls that are not answered now, nor links."""
        self._methods = methods
        self._request_bytes = request_bytes
        self._header_bytes = header_bytes
        self._most = most
        self._retry_ms = retry_ms

    def begin(self, stream: Http2Stream, headers: HeaderFields) -> StreamReceiver:
        """See `relay.http2.Http2Service`."""
        try:
            head = CallHead.read(headers)
            begin = self._checked(stream, head)
        except NoCall as error:
            return LateAnswer(stream, error.fields)
        except Exception as error:
            status = status_of(error)
            if status is None:
                raise
            return LateAnswer(stream, only_trailers(status))
        self.open += 1
        call = GrpcCall(stream, head, self, request_bytes=self._request_bytes)
        return call.begin(begin)

    def _checked(self, stream: Http2Stream, head: CallHead) -> Begin:
        """Return what handles a call; raise when nothing does."""
        if stream.header_bytes > self._header_bytes:
            sentence = f"metadata has {stream.header_bytes} bytes; the limit is {self._header_bytes}"
            raise StatusError(Status(StatusCode.RESOURCE_EXHAUSTED, sentence, (), "too_large"))
        begin = self._methods.get(head.path)
        if begin is None:
            raise Unsupported(redact(f"there is no method {head.path[:80]!r} here"))
        if self.open >= self._most:
            raise TooManyCalls(self._retry_ms())
        return begin
