"""``datastream.DataStream`` on grpc.aio: calls, metadata and statuses around `relay.rpc.methods`.

Messages of streams are bytes that were made once for everybody, so no generated servicer stands in between.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode, aio
from multidict import CIMultiDict

from auth.credentials import find_key
from auth.tokens import Grant
from relay.errors import BadRequest
from relay.history.history import History
from relay.links.registry import LinkRegistry
from relay.links.session import Session
from relay.live.link import CloseReason
from relay.rpc.link import GrpcLink
from relay.rpc.methods import SERVICE, STREAMS, UNARY, Methods
from relay.rpc.status import ending_of, metadata_of
from relay.rpc.wire import stored_entries
from relay.rpc.write_hint import hold
from rounds import Catalogue
from rounds import datastream_pb2 as pb

log = structlog.get_logger()

_STATUS_S: Final = 0.1
"""For the status of a call that was cut: time to hand it to the library, which keeps it."""

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]
    Handlers = dict[str, grpc.RpcMethodHandler[Any, Any]]


class DataStream:
    """The service on one registry."""

    def __init__(self, registry: LinkRegistry, history: History, catalogue: Catalogue, methods: Methods) -> None:
        self._registry = registry
        self._history = history
        self._catalogue = catalogue
        self._methods = methods

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server is given to serve all methods. Requests and answers are bytes to gRPC."""
        streams: Handlers = {
            name: grpc.unary_stream_rpc_method_handler(partial(self._guarded, self._stream, kind))
            for name, kind in STREAMS.items()
        }
        unary: Handlers = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._guarded, self._answer, kind))
            for name, kind in UNARY.items()
        }
        replay: Handlers = {
            "Replay": grpc.unary_stream_rpc_method_handler(partial(self._guarded, self._replay, pb.ReplayRequest))
        }
        return grpc.method_handlers_generic_handler(SERVICE, {**streams, **unary, **replay})

    async def _guarded(self, do: Any, kind: type[Message], data: bytes, context: "Context") -> Any:
        """Check the key, read the request and call `do`; every error becomes a status and one sentence."""
        try:
            grant = self._grant(context)  # first: a stranger is told nothing of what is well-formed here
            try:
                request = kind.FromString(data)
            except DecodeError as error:
                raise BadRequest(f"the request is no {kind.DESCRIPTOR.full_name} message") from error
            return await do(request, grant, context)
        except (aio.AbortError, aio.InternalError, asyncio.CancelledError):
            raise  # refused above, or the client left in the middle: gRPC knows
        except Exception as error:
            ending = ending_of(error)
            if ending is None:
                log.exception("call_failed", method=kind.DESCRIPTOR.name)
                await context.abort(StatusCode.INTERNAL, "internal error; it has been logged")
            else:
                await context.abort(ending.code, ending.sentence, ending.trailers)

    async def _answer(self, request: Message, grant: Grant, _context: "Context") -> bytes:
        return (await self._methods.answer(request, grant)).SerializeToString()

    async def _stream(self, request: Message, grant: Grant, context: "Context") -> None:
        subscription, start, allow_gap = self._methods.stream_request(request, grant)
        async with (
            self._carrying(context, grant, allow_gap=allow_gap) as link,
            Session(self._history, self._catalogue, grant.games, link) as session,
        ):
            session.start(subscription, start)
            await context.send_initial_metadata(await link.begun(start))
            await link.sink.pump(context.write, partial(hold, context))

    async def _replay(self, request: pb.ReplayRequest, grant: Grant, context: "Context") -> None:
        async with (
            self._carrying(context, grant) as link,
            aclosing(await self._methods.replay(request, grant, link, stored_entries)) as batches,
        ):
            await context.send_initial_metadata(metadata_of(await link.hello))
            async for batch in batches:
                await context.write(b"".join(batch))

    @asynccontextmanager
    async def _carrying(self, context: "Context", grant: Grant, *, allow_gap: bool = False) -> AsyncIterator[GrpcLink]:
        """Have a place and a link for as long as the block runs; then the client is told how the link ended."""
        async with self._registry.permit("grpc"):
            link = self._link(allow_gap=allow_gap)
            with self._registry.open(link, key_id=grant.key_id, protocol="grpc"):
                try:
                    yield link
                except asyncio.CancelledError:
                    if not link.sink.is_cut:
                        raise  # the client has left
                except (aio.AbortError, aio.InternalError):
                    raise
                except Exception as error:
                    if ending_of(error) is not None:
                        raise
                    log.exception("call_failed", link=link.id)
                    link.end(CloseReason.FAILED)
        await _end(context, link)

    def _grant(self, context: "Context") -> Grant:
        pairs = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        metadata = CIMultiDict(pairs)
        presented = find_key(metadata, {}, allow_query=False)
        return self._registry.admission.grant(presented, origin=metadata.get("origin"))

    def _link(self, *, allow_gap: bool = False) -> GrpcLink:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("calls run in tasks")
        registry, age_s = self._registry, self._registry.age_limit_s()
        return GrpcLink(registry.hub, task.cancel, registry.ender, max_age_s=age_s, allow_gap=allow_gap)


async def _end(context: "Context", link: GrpcLink) -> None:
    ending = link.ending
    if ending is None or ending.code is StatusCode.OK:
        return
    if not link.sink.is_cut:
        await context.abort(ending.code, ending.sentence, ending.trailers)
    # Left alone, the library would never end the call of a client that does not read: it would wait, for ever, for what
    # does not come any more. A status is put behind what it has not read yet; it is not waited for.
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(_STATUS_S):
            await context.abort(ending.code, ending.sentence, ending.trailers)
