"""``/api/grpc/datastream.DataStream/<Method>``: the gRPC service for clients without HTTP/2.

Owns the HTTP side of Connect and gRPC-Web. Encodings are in `relay.rpc.connect.dialect`, methods in
`relay.rpc.methods`. Streams are links like those of SSE: the hub writes prepared bytes to the transport.
Why not a separate proxy: docs/adr/0009-own-connect-proxy.md
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

import msgspec
import structlog
from aiohttp import web
from google.protobuf.message import Message

from auth.grants import Grant
from auth.key import ANY_ORIGIN
from auth.redact import redact
from relay.admission.gate import Permit
from relay.admission.limits.link_limits import Opening
from relay.errors import REFUSALS, Unsupported, WrongMediaType
from relay.history.history import History
from relay.http.compress import compressed
from relay.http.connections.departures import has_left
from relay.http.connections.guarded import guarded
from relay.http.connections.quick_refusals import retry_headers
from relay.http.parameters import listed
from relay.http.request import (
    KEY_ID,
    caller_of,
    granted,
    note_refusal,
    presented_key,
    restrict_origin,
    show_quota,
)
from relay.links.link_registry import LinkRegistry
from relay.links.openings import opening_of
from relay.links.session import Session
from relay.live.link import CloseReason
from relay.rpc.connect.dialect import CONNECT_JSON, Dialect, accepted, error_of, http_status_of
from relay.rpc.connect.proxy_link import ProxyLink
from relay.rpc.connect.proxy_request import deadline_of, dialect_of, message_of
from relay.rpc.methods import SERVICE, STREAMS, UNARY, Methods
from relay.rpc.status import DEADLINE, INTERNAL, OK, Metadata, Status, metadata_of, status_of
from relay.rpc.status_code import StatusCode
from rounds import Catalogue
from rounds import datastream_pb2 as pb

log = structlog.get_logger()

_KINDS: Final[Mapping[str, type[Message]]] = {**STREAMS, **UNARY, "Replay": pb.ReplayRequest}
_VARY: Final = {"Vary": "Origin"}  # see `relay.http.cors`


class Proxy:
    """The handlers of the service over HTTP, on one registry."""

    def __init__(self, registry: LinkRegistry, history: History, catalogue: Catalogue, methods: Methods) -> None:
        self._registry = registry
        self._history = history
        self._catalogue = catalogue
        self._methods = methods

    def table(self) -> list[web.RouteDef]:
        path = f"/api/grpc/{SERVICE}/{{method}}"
        return [web.post(path, self.call), web.get(path, self.call, allow_head=False)]

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, or its error, in the dialect of the request."""
        dialect = CONNECT_JSON  # for errors before the dialect is known
        try:
            dialect = dialect_of(request)
            return await self._answer(request, dialect)
        except WrongMediaType as error:
            return _wrong_media_type(request, error)
        except TimeoutError:
            status = DEADLINE
        except Exception as error:
            if has_left(request, error):
                raise
            self._registry.refusals.add(error, "proxy", caller_of(request), key_id=request.get(KEY_ID))
            note_refusal(request, error)
            known = status_of(error)
            if known is None:
                log.exception("call_failed", path=request.path[:200])
            status = known or INTERNAL
        return _refused(dialect, status)

    async def _answer(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        name = request.match_info["method"]
        kind = _KINDS.get(name)
        if kind is None:
            raise Unsupported(f"unknown method {name[:64]!r}; there are: {', '.join(_KINDS)}")
        if not dialect.web and dialect.streams == (name in UNARY):
            raise WrongMediaType(dialect.content_type, allowed=accepted(streams=name not in UNARY))
        grant = self._grant(request, opens_link=name not in UNARY)
        if name in UNARY:
            async with asyncio.timeout_at(deadline_of(request)):
                message = await message_of(request, dialect, kind, limit=self._methods.request_bytes)
                grant = self._registry.admission.still(grant, caller_of(request))
                payer = self._registry.admission.payer(grant, caller_of(request))
                answer = await self._methods.answer(message, grant, payer, dialect.answers)
                return await _single(request, dialect, answer)
        with self._registry.admission.of_clients.opening(grant, caller_of(request).address):
            deadline = deadline_of(request)
            async with asyncio.timeout_at(deadline):
                message = await message_of(request, dialect, kind, limit=self._methods.request_bytes)
            if isinstance(message, pb.ReplayRequest):
                return await self._replay(request, dialect, message, grant, deadline)
            return await self._stream(request, dialect, message, grant, deadline)

    @asynccontextmanager
    async def _permit(self, request: web.Request, grant: Grant, opening: Opening) -> AsyncIterator[Permit]:
        async with self._registry.permit("proxy", grant, caller_of(request), opening) as permit:
            guarded(request).became_link()
            show_quota(request, permit.use.quota)
            yield permit

    async def _stream(
        self, request: web.Request, dialect: Dialect, message: Message, grant: Grant, deadline: float | None
    ) -> web.StreamResponse:
        subscription, start, allow_gap, heartbeat_s = self._methods.stream_request(message, grant)
        response = web.StreamResponse()
        async with self._permit(request, grant, opening_of(self._history.hub, subscription, start)) as permit:
            link = self._link(request, dialect, allow_gap=allow_gap)
            link.heartbeat_s = heartbeat_s
            with self._registry.open(link, permit, subscription.games):
                payer = self._registry.admission.payer(permit.grant, permit.caller)
                async with Session(self._history, self._catalogue, permit, link, payer) as session:
                    session.start(subscription, start)
                    async with self._call(request, deadline, link, response):
                        await _open(request, response, dialect, link, await link.initial_metadata(start))
                        await link.wait_ended()
        return response

    async def _replay(
        self, request: web.Request, dialect: Dialect, message: pb.ReplayRequest, grant: Grant, deadline: float | None
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        async with self._permit(request, grant, self._methods.replay_opening(message)) as permit:
            link = self._link(request, dialect)
            permit.use.begin_replay()
            payer = self._registry.admission.payer(permit.grant, permit.caller)
            with self._registry.open(link, permit, message.game_slugs):
                async with (
                    self._call(request, deadline, link, response),
                    aclosing(
                        await self._methods.replay(message, permit.grant, payer, link, dialect.write_stored)
                    ) as batches,
                ):
                    await _open(request, response, dialect, link, metadata_of(await link.hello))
                    async for batch in batches:
                        link.write(dialect.wrap(dialect.write_batch(batch)))
                        await link.drained()
        return response

    @asynccontextmanager
    async def _call(
        self, request: web.Request, deadline: float | None, link: ProxyLink, response: web.StreamResponse
    ) -> AsyncIterator[None]:
        """Run the block until `deadline` (loop time). After the headers were sent, an error ends the link."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except Exception as error:
            if not response.prepared or has_left(request, error):
                raise
            if isinstance(error, TimeoutError):
                link.end(CloseReason.DEADLINE)
            else:
                log.exception("call_failed", link=link.id)
                link.end(CloseReason.FAILED)

    def _link(self, request: web.Request, dialect: Dialect, *, allow_gap: bool = False) -> ProxyLink:
        registry, age_s = self._registry, self._registry.age_limit_s()
        return ProxyLink(registry.hub, request, dialect, registry.ender, max_age_s=age_s, allow_gap=allow_gap)

    def _grant(self, request: web.Request, *, opens_link: bool) -> Grant:
        grant = granted(request, presented_key(request), self._registry.admission, opens_link=opens_link)
        if grant.kind == "public" and ANY_ORIGIN not in grant.allowed_origins:
            restrict_origin(request)
        return grant


async def _open(
    request: web.Request,
    response: web.StreamResponse,
    dialect: Dialect,
    link: ProxyLink,
    metadata: Metadata,
) -> None:
    """Answer 200 with the headers of a stream, and open the link."""
    response.headers.update(
        {
            "Content-Type": dialect.content_type,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            **_VARY,
            **dict(metadata),
        }
    )
    response.force_close()
    await response.prepare(request)
    if request.transport is None:
        raise ConnectionResetError("the client has left")
    link.open(request)


async def _single(request: web.Request, dialect: Dialect, message: bytes) -> web.Response:
    if dialect.web:
        body = dialect.wrap(message) + dialect.end(OK)
        return web.Response(body=body, content_type=dialect.content_type, headers=_VARY)
    body, encoding = await compressed(message, listed(request.headers, "Accept-Encoding"), guarded(request).turns)
    headers = {"Vary": "Accept-Encoding, Origin"} | ({} if encoding is None else {"Content-Encoding": encoding})
    return web.Response(body=body, content_type=dialect.content_type, headers=headers)


def _refused(dialect: Dialect, status: Status) -> web.Response:
    if dialect.streams:
        return web.Response(body=dialect.end(status), content_type=dialect.content_type, headers=_VARY)
    headers = dict(status.trailers)
    if "retry-after-ms" in headers:
        headers |= retry_headers(int(headers["retry-after-ms"]))
    return _error(http_status_of(status.code), status, headers)


def _wrong_media_type(request: web.Request, error: WrongMediaType) -> web.Response:
    """Refuse a content type that is no dialect, or a dialect for other methods: a stream's 200 would mean success.

    The Connect protocol requires 415; its own libraries add ``Accept-Post`` (W3C Linked Data Platform, 7.1).
    """
    status = Status(StatusCode.UNIMPLEMENTED, redact(str(error)), (), REFUSALS[WrongMediaType].code)
    headers = {} if request.method == "GET" else {"Accept-Post": ", ".join(error.allowed)}
    return _error(REFUSALS[WrongMediaType].status, status, headers)


def _error(http_status: int, status: Status, headers: Mapping[str, str]) -> web.Response:
    body = msgspec.json.encode(error_of(status))
    return web.Response(status=http_status, body=body, content_type="application/json", headers={**headers, **_VARY})
