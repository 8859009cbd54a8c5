"""Requests for streams: what each reads from its head, and which link it becomes.

Owns the order of such a request: credential, parameters, permit, hand-over, link; and the answer when there is no link.
Waits for nothing: where the permit has to be waited for, the caller does that in between.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

from auth.credentials import find_sse_credential, find_ws_credential
from auth.grants import Grant
from relay.admission.capacity import LinkProtocol
from relay.admission.gate import Permit
from relay.admission.limits.link_limits import Opening
from relay.admission.requested import PARAMETERS as SUBSCRIPTION_PARAMETERS
from relay.errors import KeysUnavailable, TooManyRequests, Unavailable
from relay.history.history import History
from relay.history.start import PARAMETERS as START_PARAMETERS
from relay.history.start import Start
from relay.http.cors import stream_headers, warning_headers
from relay.http.early.answer import quota_headers
from relay.http.early.asked import Asked
from relay.http.early.checks import CheckedRequest, accept_stream
from relay.http.parameters import listed
from relay.http.sse.gzip_link import GzipSseLink
from relay.http.sse.sse_client import PARAMETERS as CLIENT_PARAMETERS
from relay.http.sse.sse_client import SseClient, client_of
from relay.http.sse.sse_link import HEADERS, SseLink, refuse
from relay.http.sse.stream_coding import accepts_gzip, coding_headers
from relay.http.takeover import give_to, head, take_over
from relay.http.websocket.handshake import Handshake, check_upgrade, shake_hands
from relay.links.link_registry import LinkRegistry
from relay.links.openings import opening_of
from relay.links.session import Session
from relay.links.stream_link import StreamLink
from relay.live.channels import Subscription
from rounds import Catalogue
from rounds.filter import PARAMETERS as FILTER_PARAMETERS

WS_PARAMETERS: Final = (*START_PARAMETERS, *FILTER_PARAMETERS, *SUBSCRIPTION_PARAMETERS, "token")
SSE_PARAMETERS: Final = (*WS_PARAMETERS, *CLIENT_PARAMETERS, "api_key", "lastEventId")
"""``lastEventId``: EventSource polyfills that cannot set headers send it when they reconnect."""

Refusal = Unavailable | TooManyRequests


class Compresses(NamedTuple):
    """Which streams are compressed when their client accepts it."""

    websocket: bool = True
    sse: bool = True


BOTH: Final = Compresses()


class WebSocketRequest(NamedTuple):
    """A request for a WebSocket, which may become a link."""

    grant: Grant
    subscription: Subscription
    start: Start
    handshake: Handshake
    opening: Opening


class SseRequest(NamedTuple):
    """A request for an event stream, which may become a link."""

    grant: Grant
    subscription: Subscription
    start: Start
    client: SseClient
    last_event_id: str | None
    opening: Opening


class StreamRequests:
    """Decides requests for streams, and makes links of them, on one registry."""

    def __init__(
        self, registry: LinkRegistry, history: History, catalogue: Catalogue, compresses: Compresses = BOTH
    ) -> None:
        """`compresses`: which streams are compressed when their client accepts it."""
        self._compresses = compresses
        self.registry = registry
        self.history = history
        self._catalogue = catalogue

    # --- WebSocket -------------------------------------------------------------------------------------------------

    def websocket(self, asked: Asked) -> WebSocketRequest:
        """Read a request for a WebSocket; raise what it is refused with."""
        try:
            check_upgrade(asked.upgrade_headers)
            presented = find_ws_credential(asked.headers, asked.query)
            admission = self.registry.admission
            checked = accept_stream(asked, presented, admission, self._catalogue, WS_PARAMETERS)
            start = Start.parse(checked.query)
            subprotocol = None if presented is None else presented.subprotocol
            compresses = self._compresses.websocket
            handshake = shake_hands(asked.headers, subprotocol=subprotocol, compresses=compresses)
            return WebSocketRequest(
                checked.grant, checked.subscription, start, handshake, self._opening(checked, start)
            )
        except Exception as error:
            self._count_failed(asked, error)
            raise

    def open_websocket(self, asked: Asked, wanted: WebSocketRequest, permit: Permit | Refusal) -> None:
        """Answer the handshake, and make a link of the connection; raise `TakenOver` when the client has left."""
        # Loads `websockets`, which the start does not need.
        from relay.http.websocket.websocket_link import WebSocketLink

        registry, settings = self.registry, self.registry.settings
        transport = self._take_over(asked, permit)
        link = WebSocketLink(
            transport,
            registry.ender,
            window_bits=wanted.handshake.window_bits,
            keeps_window=wanted.handshake.keeps_window,
            message_bytes=settings.message_bytes,
            frames_per_heartbeat=settings.frames_per_heartbeat,
            max_age_s=registry.age_limit_s(),
        )
        give_to(link, transport)
        headers = wanted.handshake.headers | warning_headers(asked) | quota_headers(asked)
        if isinstance(permit, Permit) and wanted.start.is_live:
            headers["Head-Cursor"] = str(self.history.hub.head)
        transport.write(head(101, headers))
        if isinstance(permit, Unavailable):
            # A browser sees no status of a failed handshake: the handshake succeeds, and the close frame has the delay.
            registry.ender.refuse(link, permit)
        elif isinstance(permit, Permit):
            session = self._session(link, permit, wanted.subscription)
            link.on_message = session.on_message
            session.start(wanted.subscription, wanted.start)

    # --- SSE -------------------------------------------------------------------------------------------------------

    def sse(self, asked: Asked) -> SseRequest | KeysUnavailable:
        """Read a request for an event stream; raise what it is refused with.

        Returns `KeysUnavailable` where the credential cannot be judged now, for `refuse_sse`.
        """
        try:
            presented = find_sse_credential(asked.headers, asked.query)
            admission = self.registry.admission
            try:
                checked = accept_stream(asked, presented, admission, self._catalogue, SSE_PARAMETERS)
            except KeysUnavailable as refusal:
                self.registry.refusals.add(refusal, "sse", asked.caller)
                asked.connection.may_become_link()
                return refusal
            client = client_of(asked.headers, checked.query, end=self.registry.settings.sse_end)
            last_event_id = asked.headers.get("Last-Event-ID") or checked.query.get("lastEventId")
            start = Start.parse(checked.query, last_event_id=last_event_id)
            if start.events is not client.events:
                start = replace(start, events=client.events)
            opening = self._opening(checked, start)
            return SseRequest(checked.grant, checked.subscription, start, client, last_event_id, opening)
        except Exception as error:
            self._count_failed(asked, error)
            raise

    def open_sse(self, asked: Asked, wanted: SseRequest, permit: Permit | Refusal) -> None:
        """Answer a request, and make a link of its connection; raise `TakenOver` when the client has left."""
        registry, client, start = self.registry, wanted.client, wanted.start
        if not isinstance(permit, Permit):
            self.refuse_sse(asked, client, permit)
            return
        transport = self._take_over(asked, permit)
        accepted = listed(asked.headers, "Accept-Encoding") if self._compresses.sse else ""
        gzip, kind = False, SseLink
        if accepts_gzip(accepted):
            gzip, kind = True, GzipSseLink
        link = kind(transport, client, registry.ender, chunked=asked.is_http11, max_age_s=registry.age_limit_s())
        give_to(link, transport)
        headers = _sse_headers(asked)
        headers |= coding_headers(headers, accepted, gzip=gzip)
        # For a client that starts with the next round, the head of the log is its place until a round comes.
        place = self.history.hub.head if start.is_live else start.after
        if start.is_live:
            headers["Head-Cursor"] = str(place)
        transport.write(head(200, headers))
        link.begin(registry.settings.retry_ms, None if place is None else str(place))
        self._session(link, permit, wanted.subscription).start(wanted.subscription, start)

    def refuse_sse(self, asked: Asked, client: SseClient | None, refusal: Refusal) -> None:
        """End an event stream with the delay of a refusal: after an error status, no EventSource comes back.

        `client`: None where its request was not checked.
        """
        if client is None:
            client = client_of(asked.headers, {}, end=self.registry.settings.sse_end)
        transport = take_over(asked)
        refuse(transport, client, head(200, _sse_headers(asked)), refusal.retry_ms, chunked=asked.is_http11)

    # --- permits ---------------------------------------------------------------------------------------------------

    async def permit(
        self, asked: Asked, protocol: LinkProtocol, wanted: WebSocketRequest | SseRequest
    ) -> Permit | Refusal:
        """Take a permit for a link; return the refusal where clients get it over a stream, else raise it."""
        asked.connection.may_become_link()
        try:
            permit = await self.registry.take_permit(protocol, wanted.grant, asked.caller, wanted.opening)
        except (Unavailable, TooManyRequests) as refusal:
            return self._refused(asked, protocol, wanted.grant, refusal)
        return self._taken(asked, permit)

    def permit_now(
        self, asked: Asked, protocol: LinkProtocol, wanted: WebSocketRequest | SseRequest
    ) -> Permit | Refusal:
        """Do as `permit` while the log is followed: nothing has to be waited for."""
        try:
            permit = self.registry.take_permit_now(protocol, wanted.grant, asked.caller, wanted.opening)
        except (Unavailable, TooManyRequests) as refusal:
            return self._refused(asked, protocol, wanted.grant, refusal)
        return self._taken(asked, permit)

    def _taken(self, asked: Asked, permit: Permit) -> Permit:
        asked.connection.became_link()
        asked.show(permit.use.quota)
        return permit

    def _refused(self, asked: Asked, protocol: LinkProtocol, grant: Grant, refusal: Refusal) -> Refusal:
        if isinstance(refusal, Unavailable):
            self.registry.refusals.add(refusal, asked.counted_as, asked.caller, key_id=grant.key_id)
        elif protocol == "sse":  # after any other status an EventSource does not come back
            asked.show(refusal.quota)
            self.registry.refusals.add(refusal, "sse", asked.caller)
        else:
            raise refusal
        return refusal

    def _take_over(self, asked: Asked, permit: Permit | Refusal) -> asyncio.Transport:
        """Do as `take_over`, and give the permit back when the client has left."""
        with self.handing_over(permit):
            return take_over(asked)

    @contextmanager
    def handing_over(self, permit: Permit | Refusal) -> Iterator[None]:
        """Give the permit back when the client leaves before its link is made."""
        try:
            yield
        except BaseException:
            if isinstance(permit, Permit):
                self.registry.release_permit(permit)
            raise

    def _count_failed(self, asked: Asked, error: Exception) -> None:
        """Count what opens no link, since it asks for what it may not, as a request."""
        if asked.grant is not None:
            self.registry.admission.of_clients.failed_opening(asked.grant, asked.caller.address, error)

    def _opening(self, checked: CheckedRequest, start: Start) -> Opening:
        return opening_of(self.history.hub, checked.subscription, start)

    def _session(self, link: StreamLink, permit: Permit, subscription: Subscription) -> Session:
        payer = self.registry.admission.payer(permit.grant, permit.caller)
        session = Session(self.history, self._catalogue, permit, link, payer)
        self.registry.adopt(link, session, permit, subscription.games)
        return session


def _sse_headers(asked: Asked) -> dict[str, str]:
    headers = HEADERS | stream_headers(asked) | warning_headers(asked) | quota_headers(asked)
    if asked.is_http11:
        headers["Transfer-Encoding"] = "chunked"
    return headers
