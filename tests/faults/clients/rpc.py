"""gRPC clients (grpcio) and Connect clients (JSON in envelopes): statuses, trailers, and the metadata with a place."""

import asyncio
import struct
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import aiohttp
import grpc
import msgspec
from grpc import aio

from rounds import datastream_pb2 as pb
from tests.faults.clients.client import SILENCE_S, Address, Client, Ended, Opened, sequence_of
from tests.faults.clients.websocket import session
from tests.faults.values import Gap, Item
from tests.rpc.caller import Caller, status_of, text_of

_OPTIONS: Final[dict[str, Any]] = {
    "keepalive_time_ms": 6000,
    "keepalive_timeout_ms": 2000,
    "http2.max_pings_without_data": 0,
    "enable_retries": 0,
    "use_local_subchannel_pool": 1,
}
_NEVER_S: Final = 3600.0
_END: Final = 0x02


class RpcClient(Client):
    """What gRPC and Connect have in common."""

    @property
    def method(self) -> str:
        return "StreamByGame" if self.plan.games else "StreamAll"

    def start(self, after: str | None) -> dict[str, Any]:
        """The fields of a request, in the names of the schema."""
        fields: dict[str, Any] = {}
        if self.plan.games:
            fields["game_slug"] = self.plan.games[0]
        criteria: dict[str, Any] = {}
        if self.plan.min_point is not None:
            criteria["min_point"] = self.plan.min_point
        if self.plan.colors:
            criteria["colors"] = list(self.plan.colors)
        if criteria:
            fields["filter"] = criteria
        start: dict[str, Any] = {}
        if after is not None:
            start["after"] = after
        if self.plan.allow_gap:
            start["allow_gap"] = True
        if start:
            fields["start"] = start
        return fields

    def end(self, code: str, trailers: Mapping[str, str]) -> Ended:
        """Read a status. Rounds that are gone are a gap up to the cursor to continue with."""
        retry_ms = float(trailers.get("retry-after-ms", 0))
        resume = trailers.get("resume-cursor")
        if code == "OUT_OF_RANGE" and resume and self.cursor and self.view.chains:
            gap = Gap(sequence_of(self.cursor), sequence_of(resume), "out of range")
            if gap.to > gap.after:  # otherwise: only the log's floor has moved up to the cursor
                self.view.chains[-1].items.append(gap)
        return Ended(code, resume, retry_ms)


class GrpcClient(RpcClient):
    """grpcio, as docs/grpc.md says."""

    async def connection(self, address: Address, after: str | None) -> AsyncGenerator[Item | Opened, None]:
        kind = pb.StreamByGameRequest if self.plan.games else pb.StreamAllRequest
        fields = self.start(after)
        async with Caller(address.grpc, self.world.key, **_OPTIONS) as caller:
            call = caller.call(kind(**fields), timeout_s=_NEVER_S)
            try:
                async with asyncio.timeout(SILENCE_S):
                    metadata = text_of(await call.initial_metadata())
                yield Opened()
                if (item := self.begin(metadata, after)) is not None:
                    yield item
                while (message := await call.read()) is not aio.EOF:
                    yield self._item(message)
                raise Ended("OK")
            except aio.AioRpcError as error:
                code, _, trailers = status_of(error)
                if code is grpc.StatusCode.UNAVAILABLE and "retry-after-ms" not in trailers:
                    raise ConnectionError(error.details()) from None
                raise self.end(code.name, trailers) from None
            finally:
                call.cancel()

    def _item(self, message: Any) -> Item:
        if message.HasField("gap"):
            return self.gap(message.gap.from_cursor, message.gap.to_cursor, message.gap.reason)
        names = ("round_id", "game_slug", "extras", "cursor")
        return self.entry({name: getattr(message, name) for name in names})


class ConnectClient(RpcClient):
    """Connect over HTTP/1.1 with JSON: streams are envelopes, the last one has the status."""

    async def connection(self, address: Address, after: str | None) -> AsyncGenerator[Item | Opened, None]:
        body = msgspec.json.encode(self.start(after))
        headers = {"X-API-Key": self.world.key, "Content-Type": "application/connect+json"}
        url = f"{address.url}/api/grpc/datastream.DataStream/{self.method}"
        # The protocol has no heartbeat: an idle stream is given up after a while, and called again with its place.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=2 * SILENCE_S)
        async with (
            session(slow=self.plan.behaviour == "slow") as http,
            http.post(url, data=struct.pack("!BI", 0, len(body)) + body, headers=headers, timeout=timeout) as answer,
        ):
            if answer.status != 200:
                raise Ended(f"status {answer.status}", retry_ms=300)
            yield Opened()
            if (item := self.begin(answer.headers, after)) is not None:
                yield item
            while True:
                flags, size = struct.unpack("!BI", await answer.content.readexactly(5))
                fields = msgspec.json.decode(await answer.content.readexactly(size))
                if flags & _END:
                    raise self._end(fields)
                if "gap" in fields:
                    gap = fields["gap"]
                    yield self.gap(gap["from_cursor"], gap["to_cursor"], gap["reason"])
                elif "cursor" in fields:
                    yield self.entry(fields)

    def _end(self, fields: dict[str, Any]) -> Ended:
        trailers = {name.lower(): values[0] for name, values in fields.get("metadata", {}).items()}
        return self.end(fields.get("error", {}).get("code", "ok").upper(), trailers)
