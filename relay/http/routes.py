"""The HTTP paths of links: what each reads from a request, and which link it makes.

Owns the order of a request: credential, parameters, permit, hand-over, link. Makes no decisions of its own.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Literal, NoReturn

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from auth.credentials import Presented, find_sse_credential, find_ws_credential, required
from auth.grants import Grant
from relay.admission.gate import Permit
from relay.admission.limits.link_limits import Opening
from relay.admission.requested import PARAMETERS as SUBSCRIPTION_PARAMETERS
from relay.errors import KeysUnavailable, TooManyRequests, Unavailable
from relay.history.history import History
from relay.history.query import Query, is_over
from relay.history.start import PARAMETERS as START_PARAMETERS
from relay.history.start import Start
from relay.http.connections.guarded import guarded
from relay.http.connections.over_limit import quota_headers, show_quota
from relay.http.cors import stream_headers, warning_headers
from relay.http.request import (
    KEY_ID,
    CheckedRequest,
    caller_of,
    check_request,
    note_browser,
)
from relay.http.sse.sse_client import PARAMETERS as CLIENT_PARAMETERS
from relay.http.sse.sse_client import client_of
from relay.http.sse.sse_link import HEADERS, SseLink, nothing_left, refuse
from relay.http.takeover import TakenOver, give_to, head, take_over
from relay.http.websocket.handshake import check_upgrade, shake_hands
from relay.links.link_registry import LinkRegistry
from relay.links.openings import opening_of
from relay.links.session import Session
from relay.links.stream_link import StreamLink
from relay.live.channels import Subscription
from roundlog.log_errors import LogError
from rounds import Catalogue
from rounds.filter import PARAMETERS as FILTER_PARAMETERS

_GRANT: Final = web.RequestKey("grant", Grant)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_STREAM_PATHS: Final = ("", "/type/{type}", "/{game}")
WS_PARAMETERS: Final = (*START_PARAMETERS, *FILTER_PARAMETERS, *SUBSCRIPTION_PARAMETERS, "token")
SSE_PARAMETERS: Final = (*WS_PARAMETERS, *CLIENT_PARAMETERS, "api_key", "lastEventId")
"""``lastEventId``: EventSource polyfills that cannot set headers send it when they reconnect."""


class Routes:
    """The handlers of streams, on one registry."""

    def __init__(self, registry: LinkRegistry, history: History, catalogue: Catalogue) -> None:
        self._registry = registry
        self._history = history
        self._catalogue = catalogue

    def table(self) -> list[web.RouteDef]:
        return [
            *(web.get(f"/ws{path}", self._counting(self.stream_websocket), allow_head=False) for path in _STREAM_PATHS),
            *(web.get(f"/sse{path}", self._counting(self.stream_sse), allow_head=False) for path in _STREAM_PATHS),
        ]

    def _counting(self, handler: Handler) -> Handler:
        """Count what opens no link, since it asks for what it may not, as a request."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except Exception as error:
                grant, limits = request.get(_GRANT), self._registry.admission.of_clients
                if grant is not None:
                    limits.failed_opening(grant, caller_of(request).address, error)
                raise

        return handle

    async def stream_websocket(self, request: web.Request) -> web.StreamResponse:
        # RFC 9110 section 7.8: an upgrade in a request of HTTP/1.0 is ignored.
        check_upgrade(request.headers if request.version >= HttpVersion11 else CIMultiDict())
        presented = find_ws_credential(request.headers, request.query)
        grant, subscription, query = self._admit(request, presented, WS_PARAMETERS)
        start = Start.parse(query)
        handshake = shake_hands(request.headers, subprotocol=None if presented is None else presented.subprotocol)
        # Loads `websockets`, which the start does not need.
        from relay.http.websocket.websocket_link import WebSocketLink

        settings = self._registry.settings
        permit = await self._take_permit(request, "websocket", grant, self._opening(subscription, start))
        with self._handing_over(permit):
            transport = take_over(request)
        link = WebSocketLink(
            transport,
            self._registry.ender,
            window_bits=handshake.window_bits,
            message_bytes=settings.message_bytes,
            frames_per_heartbeat=settings.frames_per_heartbeat,
            max_age_s=self._registry.age_limit_s(),
        )
        give_to(link, transport)
        admitted = isinstance(permit, Permit)
        place = {"Head-Cursor": str(self._history.hub.head)} if admitted and start.is_live else {}
        transport.write(head(101, handshake.headers | warning_headers(request) | quota_headers(request) | place))
        if not isinstance(permit, Permit):
            # A browser sees no status of a failed handshake: the handshake succeeds, and the close frame has the delay.
            self._registry.ender.refuse(link, permit)
            raise TakenOver
        session = self._session(link, permit, subscription)
        link.on_message = session.on_message
        session.start(subscription, start)
        raise TakenOver

    async def stream_sse(self, request: web.Request) -> web.StreamResponse:
        presented = find_sse_credential(request.headers, request.query)
        try:
            grant, subscription, query = self._admit(request, presented, SSE_PARAMETERS)
        except KeysUnavailable as refusal:
            self._refuse_for_now(request, refusal)
        client = client_of(request.headers, query, end=self._registry.settings.sse_end)
        last_event_id = request.headers.get("Last-Event-ID") or query.get("lastEventId")
        start = replace(Start.parse(query, last_event_id=last_event_id), events=client.events)
        chunked = request.version >= HttpVersion11
        permit: Permit | Unavailable | TooManyRequests
        try:
            permit = await self._take_permit(request, "sse", grant, self._opening(subscription, start))
        except TooManyRequests as refusal:  # after any other status an EventSource does not come back
            show_quota(request, refusal.quota)
            self._registry.refusals.add(refusal, "sse", caller_of(request))
            permit = refusal
        headers = HEADERS | stream_headers(request) | warning_headers(request) | quota_headers(request)
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        with self._handing_over(permit):
            if isinstance(permit, Permit) and last_event_id and await self._is_over(subscription, start, permit):
                self._registry.release_permit(permit)
                return nothing_left()
            transport = take_over(request)
        if not isinstance(permit, Permit):
            refuse(transport, client, head(200, headers), permit.retry_ms, chunked=chunked)
            raise TakenOver
        age_s = self._registry.age_limit_s()
        link = SseLink(transport, client, self._registry.ender, chunked=chunked, max_age_s=age_s)
        give_to(link, transport)
        # For a client that starts with the next round, the head of the log is its place until a round comes.
        place = self._history.hub.head if start.is_live else start.after
        transport.write(head(200, headers | ({"Head-Cursor": str(place)} if start.is_live else {})))
        link.begin(self._registry.settings.retry_ms, None if place is None else str(place))
        self._session(link, permit, subscription).start(subscription, start)
        raise TakenOver

    def _refuse_for_now(self, request: web.Request, refusal: Unavailable) -> NoReturn:
        """Refuse an event stream before its request is checked: after an error status, no EventSource comes back."""
        self._registry.refusals.add(refusal, "sse", caller_of(request))
        client = client_of(request.headers, {}, end=self._registry.settings.sse_end)
        chunked = request.version >= HttpVersion11
        headers = HEADERS | stream_headers(request) | ({"Transfer-Encoding": "chunked"} if chunked else {})
        guarded(request).may_become_link()
        refuse(take_over(request), client, head(200, headers), refusal.retry_ms, chunked=chunked)
        raise TakenOver

    async def _take_permit(
        self, request: web.Request, protocol: Literal["websocket", "sse"], grant: Grant, opening: Opening
    ) -> Permit | Unavailable:
        """Take a permit for a link; return the refusal when this relay takes none. Raises `TooManyRequests`."""
        guarded(request).may_become_link()
        try:
            permit = await self._registry.take_permit(protocol, grant, caller_of(request), opening)
        except Unavailable as refusal:
            self._registry.refusals.add(refusal, protocol, caller_of(request), key_id=grant.key_id)
            return refusal
        guarded(request).became_link()
        show_quota(request, permit.use.quota)
        return permit

    def _opening(self, subscription: Subscription, start: Start) -> Opening:
        return opening_of(self._history.hub, subscription, start)

    @contextmanager
    def _handing_over(self, permit: Permit | Unavailable | TooManyRequests) -> Iterator[None]:
        """Give the permit back when the client leaves before its link is made."""
        try:
            yield
        except BaseException:
            if isinstance(permit, Permit):
                self._registry.release_permit(permit)
            raise

    def _session(self, link: StreamLink, permit: Permit, subscription: Subscription) -> Session:
        payer = self._registry.admission.payer(permit.grant, permit.caller)
        session = Session(self._history, self._catalogue, permit, link, payer)
        self._registry.adopt(link, session, permit, subscription.games)
        return session

    async def _is_over(self, subscription: Subscription, start: Start, permit: Permit) -> bool:
        """Whether a stream has reached its end before: an EventSource cannot know that, and reconnects."""
        payer = self._registry.admission.payer(permit.grant, permit.caller)
        query = Query(subscription, limit=1, after=start.after, until_ms=start.until_ms, payer=payer)
        try:
            return await is_over(self._history, query)
        except LogError:
            return False  # the stream itself waits for the log; after an error an EventSource would not reconnect

    def _admit(self, request: web.Request, found: Presented | None, parameters: tuple[str, ...]) -> CheckedRequest:
        """Check the credential and the request before anything is allocated."""
        presented = required(found, request.query, tokens=True)
        admission, caller = self._registry.admission, caller_of(request)
        grant = admission.grant(presented, origin=request.headers.get("Origin"), caller=caller)
        request[KEY_ID], request[_GRANT] = grant.key_id, grant
        note_browser(request, presented, grant, admission)
        show_quota(request, admission.of_clients.requests_left(grant, caller.address))
        return check_request(request, grant, self._catalogue, parameters)
