"""``datastream.DataStream`` on grpc.aio: calls, metadata and statuses around `relay.rpc.methods`.

Uses no generated servicer: a round is serialized once for all streams, and gRPC gets bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import structlog
from google.protobuf.message import Message
from grpc import StatusCode, aio
from multidict import CIMultiDict

from auth.credentials import find_key
from auth.grants import Grant
from relay.admission.gate import Permit
from relay.admission.limits.link_limits import Opening
from relay.admission.unread_answers import UnreadAnswers
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import TooManyCalls
from relay.history.history import History
from relay.history.reading.payer import Payer
from relay.links.link_registry import LinkRegistry
from relay.links.openings import opening_of
from relay.links.session import Session
from relay.live.link import CloseReason
from relay.rpc.answer_forms import PROTO
from relay.rpc.convert import parse_message
from relay.rpc.methods import SERVICE, STREAMS, UNARY, Methods
from relay.rpc.requests import caller_of_call, only_request
from relay.rpc.rpc_link import GrpcLink
from relay.rpc.status import INTERNAL, Status, metadata_of, status_of
from relay.rpc.wire import stored_entries
from relay.rpc.write_hint import buffer_next_write
from rounds import Catalogue
from rounds import datastream_pb2 as pb

log = structlog.get_logger()

_NO_PROXIES: Final = TrustedProxies()
_STATUS_S: Final = 0.1
"""Time to pass the status of an aborted call to gRPC, which sends it later."""

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]
    Handlers = dict[str, grpc.RpcMethodHandler[Any, Any]]


class _Opened(NamedTuple):
    """An open link, and the permit that it holds."""

    permit: Permit
    link: GrpcLink


class DataStream:
    """The handlers of the service on one registry."""

    def __init__(
        self,
        registry: LinkRegistry,
        history: History,
        catalogue: Catalogue,
        methods: Methods,
        proxies: TrustedProxies = _NO_PROXIES,
        *,
        unread: UnreadAnswers | None = None,
    ) -> None:
        """Prepare to serve; `unread` bounds the answers that are not read."""
        self._proxies = proxies
        self._unread = unread
        self._registry = registry
        self._history = history
        self._catalogue = catalogue
        self._methods = methods

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of all methods, for a server. Requests and answers are bytes to gRPC."""
        streams: Handlers = {
            name: grpc.stream_stream_rpc_method_handler(partial(self._call, self._stream, kind))
            for name, kind in STREAMS.items()
        }
        unary: Handlers = {
            name: grpc.stream_unary_rpc_method_handler(partial(self._call, self._answer, kind, counts=True))
            for name, kind in UNARY.items()
        }
        replay: Handlers = {
            "Replay": grpc.stream_stream_rpc_method_handler(partial(self._call, self._replay, pb.ReplayRequest))
        }
        return grpc.method_handlers_generic_handler(SERVICE, {**streams, **unary, **replay})

    async def _call(
        self, method: Any, kind: type[Message], _requests: object, context: "Context", *, counts: bool = False
    ) -> Any:
        """Check the key, read the request and call `method`; every error becomes a status.

        `counts`: whether the call is counted as a request; links have limits of their own.
        """
        caller, key_id = caller_of_call(context, self._proxies), None
        try:
            grant = self.grant(context)  # first: without a key, no answer depends on the request, nor waits for it
            key_id = grant.key_id
            limits = self._registry.admission.of_clients
            if counts:
                limits.request(grant, caller.address)
            with nullcontext() if counts else limits.opening(grant, caller.address):
                data = await only_request(context, within_s=self._methods.request_s)
                return await method(parse_message(data, kind), grant, context)
        except (aio.AbortError, aio.InternalError, asyncio.CancelledError):
            raise  # gRPC has the status already, or the client has left
        except Exception as error:
            self._registry.refusals.add(error, "grpc", caller, key_id=key_id)
            status = status_of(error)
            if status is None:
                log.exception("call_failed", method=kind.DESCRIPTOR.name)
            await _abort(context, status or INTERNAL)

    async def _answer(self, request: Message, grant: Grant, context: "Context") -> bytes:
        caller = caller_of_call(context, self._proxies)
        payer = self._registry.admission.payer(grant, caller)
        answer = await self._methods.measured(self._methods.answer(request, grant, payer, PROTO))
        if self._unread is not None:
            try:
                self._unread.count(caller.address, len(answer))
            except TooManyCalls:
                answer = b""  # else the error's traceback has it until Python's garbage collector comes
                raise
        return answer

    async def _stream(self, request: Message, grant: Grant, context: "Context") -> None:
        subscription, start, allow_gap, heartbeat_s = self._methods.stream_request(request, grant)
        opening = opening_of(self._history.hub, subscription, start)
        games = subscription.games
        async with (
            self._open_link(context, grant, games, opening, allow_gap=allow_gap, heartbeat_s=heartbeat_s) as opened,
            Session(self._history, self._catalogue, opened.permit, opened.link, self._payer(opened.permit)) as session,
        ):
            link = opened.link
            session.start(subscription, start)
            await context.send_initial_metadata(await link.initial_metadata(start))
            await link.sink.pump(context.write, partial(buffer_next_write, context))

    async def _replay(self, request: pb.ReplayRequest, grant: Grant, context: "Context") -> None:
        async with (
            self._open_link(context, grant, request.game_slugs, self._methods.replay_opening(request)) as opened,
            aclosing(
                await self._methods.replay(request, grant, self._payer(opened.permit), opened.link, stored_entries)
            ) as batches,
        ):
            opened.permit.use.begin_replay()
            await context.send_initial_metadata(metadata_of(await opened.link.hello))
            async for batch in batches:
                await context.write(b"".join(batch))

    @asynccontextmanager
    async def _open_link(
        self,
        context: "Context",
        grant: Grant,
        games: Iterable[str],
        opening: Opening,
        *,
        allow_gap: bool = False,
        heartbeat_s: float | None = None,
    ) -> AsyncIterator[_Opened]:
        """Hold a permit and a link while the block runs; then end the call with the status of the link."""
        caller = caller_of_call(context, self._proxies)
        async with self._registry.permit("grpc", grant, caller, opening) as permit:
            link = self._link(allow_gap=allow_gap)
            link.heartbeat_s = heartbeat_s
            with self._registry.open(link, permit, games):
                try:
                    yield _Opened(permit, link)
                except asyncio.CancelledError:
                    if not link.sink.is_aborted:
                        raise  # the client has left
                except (aio.AbortError, aio.InternalError):
                    raise
                except Exception as error:
                    if status_of(error) is not None:
                        raise
                    log.exception("call_failed", link=link.id)
                    link.end(CloseReason.FAILED)
        await _end(context, link)

    def grant(self, context: "Context") -> Grant:
        """Return what the key of a call allows; raise as `Admission.grant` does."""
        pairs = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        metadata = CIMultiDict(pairs)
        presented = find_key(metadata, {}, allow_query=False)
        caller = caller_of_call(context, self._proxies)
        return self._registry.admission.grant(presented, origin=metadata.get("origin"), caller=caller)

    def _payer(self, permit: Permit) -> Payer:
        return self._registry.admission.payer(permit.grant, permit.caller)

    def _link(self, *, allow_gap: bool = False) -> GrpcLink:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("calls run in tasks")
        registry, age_s = self._registry, self._registry.age_limit_s()
        return GrpcLink(registry.hub, task.cancel, registry.ender, max_age_s=age_s, allow_gap=allow_gap)


async def _end(context: "Context", link: GrpcLink) -> None:
    status = link.status
    if status is None or status.code == 0:
        return
    if not link.sink.is_aborted:
        await _abort(context, status)
    # Without a status, grpc.aio never ends the call of a client that does not read: it waits for a write that cannot
    # finish. gRPC queues the status behind the unread messages; sending it is not awaited.
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(_STATUS_S):
            await _abort(context, status)


async def _abort(context: "Context", status: Status) -> None:
    await context.abort(StatusCode[status.code.name], status.message, status.trailers)
