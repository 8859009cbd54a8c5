"""``/api/games``, ``/api/latest/…``, ``/api/history/…``: rounds in answers to requests.

Owns the REST side of the contract: parameters, paging by ``Link``, ``ETag``, compression. Common requests are answered
from memory; `relay.history.query` answers the others.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from auth.grants import Grant
from relay.admission.requested import PARAMETERS as SUBSCRIPTION_PARAMETERS
from relay.admission.requested import asks_corrections, named_games
from relay.errors import BadRequest
from relay.history.history import History
from relay.history.query import DEFAULT_LIMIT, MAX_LIMIT, Query, look_back
from relay.history.start import parse_int, parse_time
from relay.http.compress import compressed
from relay.http.connections.guarded import guarded
from relay.http.pages.static_file import is_known
from relay.http.parameters import listed, read_query
from relay.http.request import caller_of, check_request, grant_of
from relay.links.link_registry import LinkRegistry
from relay.live.item import Item
from rounds import Catalogue, Cursor
from rounds.filter import PARAMETERS as FILTER_PARAMETERS

HISTORY_PARAMETERS: Final = ("before", "after", "from", "to", "limit", *FILTER_PARAMETERS, *SUBSCRIPTION_PARAMETERS)
_JSON: Final = "application/json"
_CACHING: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Authorization, X-API-Key"}


class Rest:
    """The handlers of the REST paths."""

    def __init__(self, registry: LinkRegistry, history: History, catalogue: Catalogue) -> None:
        self._registry = registry
        self._history = history
        self._catalogue = catalogue

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/api/games", self.games),
            web.get("/api/latest/{game}", self.latest),
            web.get("/api/history", self.history),
            web.get("/api/history/type/{type}", self.history),
            web.get("/api/history/{game}", self.history),
        ]

    async def games(self, request: web.Request) -> web.Response:
        """Answer with every game of the credential, with its newest round."""
        allowed = self._grant(request).games
        read_query(request.query.items(), ())
        async with self._registry.feed.listening():
            newest = self._history.hub.ring.newest
            rows = []
            for game in self._catalogue.games.values():
                if allowed is not None and game.slug not in allowed:
                    continue
                item = newest.get(game.slug)
                round_ = item.round if item is not None and item.valid else None
                rows.append(
                    {
                        "slug": game.slug,
                        "name": game.name,
                        "type": game.type,
                        "last_round": None if round_ is None else round_.round_id,
                        "last_update": None if round_ is None else round_.finished_at,
                    }
                )
        return await _answer(request, msgspec.json.encode(rows))

    async def latest(self, request: web.Request) -> web.Response:
        """Answer with the newest round of a game, or its newest correction; with its main figure as ``value``."""
        slug = request.match_info["game"]
        grant = self._grant(request)
        corrected = asks_corrections(read_query(request.query.items(), SUBSCRIPTION_PARAMETERS))
        named_games(self._catalogue, grant.games, [slug])
        async with self._registry.feed.listening():
            item = await self._history.newest_revision(slug) if corrected else self._history.newest(slug)
        etag = f'W/"{item.cursor}"'  # weak: it names the round, in any content coding
        if is_known(etag, listed(request.headers, "If-None-Match")):
            return web.Response(status=304, headers={**_CACHING, "ETag": etag})
        response = await _answer(request, _with_value(item, self._catalogue.game(slug).value), {"ETag": etag})
        return self._counted(response, grant, rounds=1)

    async def history(self, request: web.Request) -> web.Response:
        """Answer with past rounds, newest first, as an array; ``Link: rel="next"`` leads to the next page."""
        grant = self._grant(request)
        _, subscription, query = check_request(request, grant, self._catalogue, HISTORY_PARAMETERS)
        payer = self._registry.admission.payer(grant, caller_of(request))
        wanted = Query(
            subscription,
            limit=DEFAULT_LIMIT if "limit" not in query else parse_int(query, "limit", at_least=1, at_most=MAX_LIMIT),
            before=_cursor(query, "before"),
            after=_cursor(query, "after"),
            since_ms=parse_time(query, "from"),
            until_ms=parse_time(query, "to"),
            payer=payer,
        )
        if wanted.since_ms is not None and wanted.until_ms is not None and wanted.since_ms > wanted.until_ms:
            raise BadRequest(f"from {query['from']!r} is later than to {query['to']!r}; it must not be")
        turns = guarded(request).turns
        async with self._registry.feed.listening(), self._history.answering(payer):
            answer = await look_back(self._history, wanted)
            rendered = [item.json async for items in turns.slices(answer.items) for item in items]
            headers = {} if answer.complete else {"X-History-Complete": "false"}
            if answer.next_before is not None:
                next_page = request.rel_url.update_query(before=str(answer.next_before))
                headers["Link"] = f'<{next_page}>; rel="next"'
            # Compressed in this place too: else any number of whole answers would wait for that.
            response = await _answer(request, b"[%b]" % b",".join(rendered), headers)
            return self._counted(response, grant, rounds=len(rendered))

    def _counted(self, response: web.Response, grant: Grant, *, rounds: int) -> web.Response:
        """Count an answer as used by its key."""
        self._registry.admission.accounts.of(grant.key_id).sent(rounds, response.content_length or 0)
        return response

    def _grant(self, request: web.Request) -> Grant:
        return grant_of(request, self._registry.admission)


async def _answer(request: web.Request, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    body, encoding = await compressed(body, listed(request.headers, "Accept-Encoding"), guarded(request).turns)
    response = web.Response(body=body, headers=headers, content_type=_JSON, charset="utf-8")
    response.headers.update(_CACHING)
    if encoding is not None:
        response.headers["Content-Encoding"] = encoding
    return response


def _with_value(item: Item, member: str) -> bytes:
    """Add a member of a round's extras to its JSON, as the string ``value``."""
    try:
        value = msgspec.json.decode(item.round.extras, type=dict[str, object]).get(member)
    except msgspec.MsgspecError:
        value = None
    return b'%b,"value":%b}' % (item.json[:-1], msgspec.json.encode(None if value is None else str(value)))


def _cursor(query: Mapping[str, str], name: str) -> Cursor | None:
    return Cursor.parse(query[name]) if name in query else None
