"""The HTTP paths: what each reads from a request, and whom it hands it to. No decisions of its own."""

from typing import Final

from aiohttp import web

from auth.credentials import Presented, find_key, find_sse_credential, find_ws_credential
from auth.tokens import Grant
from backends.log import LogError
from relay import sse, websocket
from relay.edge import Edge
from relay.errors import NeedsUpgrade, Unavailable
from relay.history import History
from relay.hub import Wanted
from relay.past import Query, is_over
from relay.session import Session
from relay.start import Start
from relay.subscription import wanted
from rounds import Catalogue

_STREAM_PATHS: Final = ("", "/type/{type}", "/{game}")


class Routes:
    """The handlers of everything a client can ask for, on one edge."""

    def __init__(self, edge: Edge, history: History, catalogue: Catalogue) -> None:
        self._edge = edge
        self._history = history
        self._catalogue = catalogue

    def table(self) -> list[web.RouteDef]:
        return [
            web.post("/api/auth/token", self.issue_token),
            *(web.get(f"/ws{path}", self.stream_websocket, allow_head=False) for path in _STREAM_PATHS),
            *(web.get(f"/sse{path}", self.stream_sse, allow_head=False) for path in _STREAM_PATHS),
        ]

    async def issue_token(self, request: web.Request) -> web.Response:
        presented = find_key(request.headers, request.query, allow_query=False)
        token, expires_at = self._edge.admission.token(presented, origin=request.headers.get("Origin"))
        # Strings only: given clients decode this into a map of strings.
        return web.json_response({"token": token, "expires_at": expires_at}, headers={"Cache-Control": "no-store"})

    async def stream_websocket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise NeedsUpgrade
        presented = find_ws_credential(request.headers, request.query)
        grant, want = self._admit(request, presented)
        start = Start.parse(request.query)
        settings = self._edge.settings
        response = websocket.response(
            protocol=None if presented is None else presented.subprotocol,
            message_bytes=settings.message_bytes,
            linger_s=settings.linger_s,
        )
        try:
            async with self._edge.place():
                link = await websocket.open_link(request, response, max_age_s=self._edge.age_limit_s())
                with self._edge.open(link, key_id=grant.key_id, protocol="websocket"):
                    async with Session(self._history, self._catalogue, grant.games, link) as session:
                        session.start(want, start)
                        await link.serve(session.on_message)
        except Unavailable as full:
            # A browser sees no status of a failed handshake, so it is let in to be told when to come back.
            await websocket.refuse_politely(request, response, full)
        return response

    async def stream_sse(self, request: web.Request) -> web.StreamResponse:
        grant, want = self._admit(request, find_sse_credential(request.headers, request.query))
        start = Start.parse(request.query, last_event_id=request.headers.get("Last-Event-ID"))
        try:
            async with self._edge.place():
                if request.headers.get("Last-Event-ID") and await self._is_over(want, start):
                    return sse.nothing_left()
                response = await sse.open_stream(request)
                link = sse.open_link(request, max_age_s=self._edge.age_limit_s(), retry_ms=self._edge.settings.retry_ms)
                with self._edge.open(link, key_id=grant.key_id, protocol="sse"):
                    async with Session(self._history, self._catalogue, grant.games, link) as session:
                        session.start(want, start)
                        await link.finished()
        except Unavailable as full:
            response = await sse.open_stream(request)
            await response.write(sse.retry_line(full.retry_ms))
        return response

    async def _is_over(self, want: Wanted, start: Start) -> bool:
        """Whether a stream that is asked for again has ended: an EventSource cannot know, and comes back."""
        try:
            return await is_over(self._history, Query(want, limit=1, after=start.after, until_ms=start.until_ms))
        except LogError:
            return False  # the stream itself waits for the log; an error would end an EventSource for good

    def _admit(self, request: web.Request, presented: Presented | None) -> tuple[Grant, Wanted]:
        """Check who asks and for what, before anything is allocated for it."""
        grant = self._edge.admission.grant(presented, origin=request.headers.get("Origin"))
        return grant, wanted(self._catalogue, grant.games, request.match_info, request.query)
