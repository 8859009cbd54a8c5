"""The HTTP paths of links, as aiohttp's handlers: for requests that are not decided from their head.

Owns what has to be waited for: the log, when it is not followed yet, and whether a stream is over. Makes no decisions
of its own: those are in `relay.http.early.stream_requests`.
"""

from typing import Final

from aiohttp import web

from relay.admission.gate import Permit
from relay.errors import KeysUnavailable
from relay.history.history import History
from relay.history.query import Query, is_over
from relay.http.early.stream_requests import BOTH, Compresses, SseRequest, StreamRequests
from relay.http.early.stream_requests import SSE_PARAMETERS as SSE_PARAMETERS
from relay.http.early.stream_requests import WS_PARAMETERS as WS_PARAMETERS
from relay.http.request import asked_of
from relay.http.sse.sse_link import nothing_left
from relay.http.takeover import TakenOver
from relay.links.link_registry import LinkRegistry
from roundlog.log_errors import LogError
from rounds import Catalogue

_STREAM_PATHS: Final = ("", "/type/{type}", "/{game}")


class Routes:
    """The handlers of streams."""

    def __init__(
        self, registry: LinkRegistry, history: History, catalogue: Catalogue, compresses: Compresses = BOTH
    ) -> None:
        self._requests = StreamRequests(registry, history, catalogue, compresses)

    def table(self) -> list[web.RouteDef]:
        return [
            *(web.get(f"/ws{path}", self.stream_websocket, allow_head=False) for path in _STREAM_PATHS),
            *(web.get(f"/sse{path}", self.stream_sse, allow_head=False) for path in _STREAM_PATHS),
        ]

    async def stream_websocket(self, request: web.Request) -> web.StreamResponse:
        asked, requests = asked_of(request), self._requests
        wanted = requests.websocket(asked)
        permit = await requests.permit(asked, "websocket", wanted)
        requests.open_websocket(asked, wanted, permit)
        raise TakenOver

    async def stream_sse(self, request: web.Request) -> web.StreamResponse:
        asked, requests = asked_of(request), self._requests
        wanted = requests.sse(asked)
        if isinstance(wanted, KeysUnavailable):
            requests.refuse_sse(asked, None, wanted)
            raise TakenOver
        permit = await requests.permit(asked, "sse", wanted)
        if isinstance(permit, Permit) and wanted.last_event_id:
            with requests.handing_over(permit):
                if await self._is_over(wanted, permit):
                    requests.registry.release_permit(permit)
                    return nothing_left()
        requests.open_sse(asked, wanted, permit)
        raise TakenOver

    async def _is_over(self, wanted: SseRequest, permit: Permit) -> bool:
        """Whether a stream has reached its end before: an EventSource cannot know that, and reconnects."""
        payer = self._requests.registry.admission.payer(permit.grant, permit.caller)
        start = wanted.start
        query = Query(wanted.subscription, limit=1, after=start.after, until_ms=start.until_ms, payer=payer)
        try:
            return await is_over(self._requests.history, query)
        except LogError:
            return False  # the stream itself waits for the log; after an error an EventSource would not reconnect
