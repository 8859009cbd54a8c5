"""``datastream.DataStream`` as gRPC methods: calls, metadata and statuses around `relay.rpc.methods`.

Uses no generated servicer: a round is serialized once for all streams. The streams of rounds are links without a task;
a bulk replay and a unary call have one while they are answered.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final

import structlog
from google.protobuf.message import Message

from auth.credentials import find_key
from auth.grants import Grant
from relay.admission.caller import Caller
from relay.admission.gate import Permit
from relay.admission.unread_answers import UnreadAnswers
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import TooManyCalls, TooManyRequests
from relay.history.history import History
from relay.history.reading.payer import Payer
from relay.links.link_registry import LinkRegistry
from relay.links.openings import opening_of
from relay.links.session import Session
from relay.live.link import CloseReason
from relay.rpc.answer_forms import PROTO
from relay.rpc.calls.grpc_call import Begin, GrpcCall
from relay.rpc.calls.one_request import InTask
from relay.rpc.convert import parse_message
from relay.rpc.grpc_link import GrpcLink
from relay.rpc.methods import SERVICE, STREAMS, UNARY, Methods
from relay.rpc.requests import caller_of_call
from relay.rpc.status import status_of
from relay.rpc.wire import stored_entries
from rounds import Catalogue
from rounds import datastream_pb2 as pb

log = structlog.get_logger()

_NO_PROXIES: Final = TrustedProxies()


class DataStream:
    """The methods of the service on one registry."""

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
        self.registry = registry
        self.history = history
        self.catalogue = catalogue
        self.does = methods
        self.unread = unread
        self._proxies = proxies

    def methods(self) -> Mapping[str, Begin]:
        """Return what handles the calls of each method, by path."""
        kinds = {**dict.fromkeys(STREAMS, _Stream), **dict.fromkeys(UNARY, _Unary), "Replay": _Replay}
        messages = {**STREAMS, **UNARY, "Replay": pb.ReplayRequest}
        return {f"/{SERVICE}/{name}": self._method(kind, messages[name]) for name, kind in kinds.items()}

    def _method(
        self, handler: "Callable[[DataStream, GrpcCall, type[Message]], _ServiceCall]", kind: type[Message]
    ) -> Begin:
        return lambda call: handler(self, call, kind)

    def caller(self, call: GrpcCall) -> Caller:
        """Return who sends a call."""
        return caller_of_call(call, self._proxies)

    def grant(self, call: GrpcCall) -> Grant:
        """Return what the key of a call allows; raise as `Admission.grant` does."""
        metadata = call.head.metadata
        presented = find_key(metadata, {}, allow_query=False)
        return self.registry.admission.grant(presented, origin=metadata.get("origin"), caller=self.caller(call))


class _ServiceCall(InTask):
    """A call of the service: its key is checked by its headers, and then its request is waited for."""

    __slots__ = ("_caller", "_grant", "_kind", "_service")

    def __init__(self, service: DataStream, call: GrpcCall, kind: type[Message]) -> None:
        self._service = service
        self._kind = kind
        self._caller = service.caller(call)
        try:
            self._grant = service.grant(call)  # first: without a key, no answer depends on the request
        except Exception as error:
            service.registry.refusals.add(error, "grpc", self._caller)
            raise
        try:
            if not call.stream.credential_accepted():
                raise TooManyCalls(service.registry.ender.delays.after_refusal())
            self.admit()
        except Exception as error:
            self.count(error)
            raise
        super().__init__(call, within_s=service.does.request_s)

    def admit(self) -> None:
        """Check the limits of requests; links have limits of their own."""

    def count(self, error: Exception) -> None:
        """Count the error that the client gets."""
        self._service.registry.refusals.add(error, "grpc", self._caller, key_id=self._grant.key_id)

    def failed(self, error: Exception) -> None:
        self.count(error)
        super().failed(error)

    @property
    def payer(self) -> Payer:
        """Who is charged for what the log is read."""
        return self._service.registry.admission.payer(self._grant, self._caller)


class _Unary(_ServiceCall):
    """A request and its answer."""

    __slots__ = ()

    def admit(self) -> None:
        self._service.registry.admission.of_clients.request(self._grant, self._caller.address)

    async def work(self, data: bytes) -> None:
        service, call = self._service, self.call
        request = parse_message(data, self._kind)
        grant = service.registry.admission.still(self._grant, self._caller)
        answer = await service.does.measured(service.does.answer(request, grant, self.payer, PROTO))
        if service.unread is not None:
            service.unread.count(self._caller.address, len(answer))  # until this task is over
        call.send(answer)
        call.end()
        del answer
        await call.taken()


class _OpensLink(_ServiceCall):
    """A call that becomes a link. One that does not, since it asks for what it may not, counts as a request."""

    __slots__ = ()

    def failed(self, error: Exception) -> None:
        super().failed(self.judged(error))

    def judged(self, error: Exception) -> Exception:
        """Count a request; return the error that the client gets, which is another one when it has sent too many."""
        try:
            self._service.registry.admission.of_clients.failed_opening(self._grant, self._caller.address, error)
        except TooManyRequests as instead:
            return instead
        return error

    def link(self, *, allow_gap: bool = False, keeps_unsent: bool = False) -> GrpcLink:
        """Make a link of the call."""
        registry = self._service.registry
        self.call.stream.became_link()
        return GrpcLink(
            registry.hub,
            self.call,
            registry.ender,
            max_age_s=registry.age_limit_s(),
            allow_gap=allow_gap,
            keeps_unsent=keeps_unsent,
        )


class _Stream(_OpensLink):
    """A stream of rounds. It has a task only when its permit has to be waited for."""

    __slots__ = ()

    def on_request(self, data: bytes) -> None:
        service = self._service
        if service.registry.feed.is_following:  # the permit is there at once
            self._task = service.history.turns.begin(self._run(data))
        else:
            super().on_request(data)

    async def work(self, data: bytes) -> None:
        service, registry = self._service, self._service.registry
        request = parse_message(data, self._kind)
        subscription, start, allow_gap, heartbeat_s = service.does.stream_request(request, self._grant)
        opening = opening_of(service.history.hub, subscription, start)
        payer = self.payer
        permit = await registry.take_permit("grpc", self._grant, self._caller, opening)
        if self.call.is_over:  # nats-py may swallow a cancellation
            registry.release_permit(permit)
            return
        # Nothing is awaited from here on: a client that cancels finds either this task or the link.
        link = self.link(allow_gap=allow_gap)
        link.heartbeat_s = heartbeat_s
        session = Session(service.history, service.catalogue, permit, link, payer)
        registry.adopt(link, session, permit, subscription.games)
        try:
            link.begin(start)
            session.start(subscription, start)
        except Exception:
            log.exception("call_failed", link=link.id)
            link.end(CloseReason.FAILED)


class _Replay(_OpensLink):
    """A bulk replay: batches of rounds, as fast as the client takes them."""

    __slots__ = ()

    async def work(self, data: bytes) -> None:
        service, registry = self._service, self._service.registry
        request = parse_message(data, self._kind)
        if not isinstance(request, pb.ReplayRequest):
            raise TypeError(type(request))
        opening = service.does.replay_opening(request)
        async with registry.permit("grpc", self._grant, self._caller, opening) as permit:
            if self.call.is_over:  # see `_Stream`
                return
            link = self.link(keeps_unsent=True)
            link.on_closed = self._cancel
            with registry.open(link, permit, request.game_slugs):
                try:
                    await self._send(request, permit, link)
                except ConnectionError:
                    pass  # the client has left, or the link was ended
                except Exception as error:  # noqa: BLE001 - becomes a status
                    self._end(link, self.judged(error))

    def _end(self, link: GrpcLink, error: Exception) -> None:
        status = status_of(error)
        if status is None:
            log.error("call_failed", link=link.id, exc_info=error)
            link.end(CloseReason.FAILED)
        else:
            self.count(error)
            link.finish(status)

    async def _send(self, request: pb.ReplayRequest, permit: Permit, link: GrpcLink) -> None:
        replay = self._service.does.replay(request, permit.grant, self.payer, link, stored_entries)
        async with aclosing(await replay) as batches:
            permit.use.begin_replay()
            async for batch in batches:
                link.write(b"".join(batch))
                await link.drained()
