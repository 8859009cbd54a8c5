"""A connection in memory with methods to call, and the client at its other end."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from relay.http2 import Http2Limits
from relay.rpc.calls.grpc_call import Begin
from relay.rpc.calls.grpc_calls import GrpcCalls
from relay.rpc.calls.request_messages import RequestMessages, prefixed
from relay.rpc.status_code import StatusCode
from tests.relay.http2.peers import Pair

REQUEST_BYTES: Final = 1000
METADATA_BYTES: Final = 2000
RETRY_MS: Final = 1234
PATH: Final = "/test.Test/Method"


class CallPair(Pair):
    """A connection on which methods are called."""

    def __init__(self, methods: Mapping[str, Begin], *, most: int = 100, **options: Any) -> None:
        self.calls = GrpcCalls(
            methods,
            request_bytes=REQUEST_BYTES,
            header_bytes=METADATA_BYTES,
            most=most,
            retry_ms=lambda: RETRY_MS,
        )
        super().__init__(self.calls, limits=Http2Limits(header_bytes=METADATA_BYTES), **options)

    def call(
        self,
        *messages: bytes,
        path: str = PATH,
        ended: bool = True,
        body: bytes | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        replaced: Mapping[str, str] | None = None,
    ) -> int:
        """Call a method; `replaced` are other values of the usual headers, or none of one that is empty."""
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
        headers |= {"content-type": "application/grpc", "te": "trailers", **(replaced or {})}
        fields = [*headers.items(), *metadata]
        data = b"".join(map(prefixed, messages)) if body is None else body
        return self.request([(n.encode(), v.encode()) for n, v in fields if v], body=data, ended=ended)

    def messages(self, stream_id: int) -> list[bytes]:
        """Return the messages that the client has received."""
        return list(RequestMessages("identity", 1 << 30).read(self.body(stream_id)))

    def status(self, stream_id: int) -> tuple[StatusCode, str, dict[str, str]]:
        """Return the status of a call that has ended, its message and its trailers."""
        assert self.has_ended(stream_id), "the call has no status"
        fields = {name.decode(): value.decode() for name, value in self.headers(stream_id)[-1]}
        code = StatusCode(int(fields.pop("grpc-status")))
        return code, unquote(fields.pop("grpc-message", "")), fields

    def code(self, stream_id: int) -> StatusCode | None:
        """Return the code of a call; None while it has none."""
        return self.status(stream_id)[0] if self.has_ended(stream_id) else None


async def turns(count: int = 5) -> None:
    """Let tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


def pieces(data: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """Cut bytes into pieces of sizes, the last one as long as need be."""
    for size in sizes:
        if not data:
            return
        yield data[:size]
        data = data[size:]
    if data:
        yield data
