"""``/api/games``, ``/api/latest/…``, ``/api/history/…``: rounds in answers to requests.

Owns the REST side of the contract: parameters, paging by ``Link``, ``ETag``, compression. Common requests are answered
from memory; `relay.history.query` answers the others.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from aiohttp import web

from auth.grants import Grant
from relay.admission.requested import PARAMETERS as SUBSCRIPTION_PARAMETERS
from relay.admission.requested import asks_corrections, named_games
from relay.errors import BadRequest
from relay.history.history import History
from relay.history.hot_pages import HotPages
from relay.history.query import DEFAULT_LIMIT, MAX_LIMIT, HistoryPage, Query, look_back
from relay.history.start import parse_int, parse_time
from relay.http.compress import compressed, compressed_now
from relay.http.connections.guarded import guarded
from relay.http.early.answer import Answer
from relay.http.early.asked import Asked, NotEarly
from relay.http.early.checks import accept, check, key_of
from relay.http.error_body import JSON
from relay.http.pages.static_file import is_known
from relay.http.parameters import listed, read_query
from relay.http.request import asked_of, response_of
from relay.links.link_registry import LinkRegistry
from relay.live.item import Item
from rounds import Catalogue, Cursor
from rounds.filter import PARAMETERS as FILTER_PARAMETERS

HISTORY_PARAMETERS: Final = ("before", "after", "from", "to", "limit", *FILTER_PARAMETERS, *SUBSCRIPTION_PARAMETERS)
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_CACHING: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Authorization, X-API-Key"}


class Rest:
    """The handlers of the REST paths."""

    def __init__(self, registry: LinkRegistry, history: History, catalogue: Catalogue) -> None:
        self._registry = registry
        self._history = history
        self._catalogue = catalogue
        self._hot = HotPages()

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
        asked = asked_of(request)
        grant = self._accept(asked)
        read_query(asked.query.items(), ())
        async with self._registry.feed.listening():
            body = self._rows(grant)
        return response_of(await _answer(request, body))

    def games_now(self, asked: Asked) -> Answer:
        """Do as `games` while the log is followed; raise `NotEarly` where something has to be waited for."""
        grant = self._accept(asked)
        read_query(asked.query.items(), ())
        with self._registry.feed.listening_now():
            return _answer_now(asked, self._rows(grant))

    async def latest(self, request: web.Request) -> web.Response:
        """Answer with the newest round of a game, or its newest correction; with its main figure as ``value``."""
        asked = asked_of(request)
        slug, grant, corrected = self._asks_latest(asked)
        async with self._registry.feed.listening():
            item = await self._history.newest_revision(slug) if corrected else self._history.newest(slug)
        if (same := _not_modified(asked, item)) is not None:
            return response_of(same)
        answer = await _answer(request, self._with_value(slug, item), _etag_header(item))
        return response_of(self._counted(answer, grant, rounds=1))

    def latest_now(self, asked: Asked) -> Answer:
        """Do as `latest` while the log is followed; raise `NotEarly` where something has to be waited for."""
        slug, grant, corrected = self._asks_latest(asked)
        if corrected:
            raise NotEarly
        with self._registry.feed.listening_now():
            item = self._history.newest(slug)
        if (same := _not_modified(asked, item)) is not None:
            return same
        answer = _answer_now(asked, self._with_value(slug, item), _etag_header(item))
        return self._counted(answer, grant, rounds=1)

    async def history(self, request: web.Request) -> web.Response:
        """Answer with past rounds, newest first, as an array; ``Link: rel="next"`` leads to the next page."""
        asked = asked_of(request)
        grant, wanted = self._asks_history(asked)
        turns = guarded(request).turns
        async with self._registry.feed.listening(), self._history.answering(wanted.payer):
            page = await look_back(self._history, wanted)
            rendered = [item.json async for items in turns.slices(page.items) for item in items]
            # Compressed in this place too: else any number of whole answers would wait for that.
            answer = await _answer(request, b"[%b]" % b",".join(rendered), _page_headers(request, page))
            return response_of(self._counted(answer, grant, rounds=len(rendered)))

    def history_now(self, asked: Asked) -> Answer:
        """Do as `history` while the log is followed; raise `NotEarly` where something has to be waited for."""
        grant, wanted = self._asks_history(asked)
        with self._registry.feed.listening_now():
            page = self._hot.find(self._history, wanted)
            if page is None:
                raise NotEarly
            headers = _link(_next_target(asked, page.next_before))
            return self._counted(_answer_now(asked, page.body, headers), grant, rounds=page.rounds)

    def _asks_latest(self, asked: Asked) -> tuple[str, Grant, bool]:
        """Check a request for the newest round; return its game, its grant, and whether it asks for corrections."""
        slug = asked.match["game"]
        grant = self._accept(asked)
        corrected = asks_corrections(read_query(asked.query.items(), SUBSCRIPTION_PARAMETERS))
        named_games(self._catalogue, grant.games, [slug])
        return slug, grant, corrected

    def _with_value(self, slug: str, item: Item) -> bytes:
        return _with_value(item, self._catalogue.game(slug).value)

    def _asks_history(self, asked: Asked) -> tuple[Grant, Query]:
        """Check a request for past rounds; return its grant, and what it asks for."""
        grant = self._accept(asked)
        _, subscription, query = check(asked, grant, self._catalogue, HISTORY_PARAMETERS)
        wanted = Query(
            subscription,
            limit=DEFAULT_LIMIT if "limit" not in query else parse_int(query, "limit", at_least=1, at_most=MAX_LIMIT),
            before=_cursor(query, "before"),
            after=_cursor(query, "after"),
            since_ms=parse_time(query, "from"),
            until_ms=parse_time(query, "to"),
            payer=self._registry.admission.payer(grant, asked.caller),
        )
        if wanted.since_ms is not None and wanted.until_ms is not None and wanted.since_ms > wanted.until_ms:
            raise BadRequest(f"from {query['from']!r} is later than to {query['to']!r}; it must not be")
        return grant, wanted

    def _rows(self, grant: Grant) -> bytes:
        newest, rows = self._history.hub.ring.newest, []
        for game in self._catalogue.games.values():
            if grant.games is not None and game.slug not in grant.games:
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
        return msgspec.json.encode(rows)

    def _counted(self, answer: Answer, grant: Grant, *, rounds: int) -> Answer:
        """Count an answer as used by its key."""
        self._registry.admission.accounts.of(grant.key_id).sent(rounds, len(answer.body))
        return answer._replace(rounds=rounds)

    def _accept(self, asked: Asked) -> Grant:
        return accept(asked, key_of(asked), self._registry.admission)


async def _answer(request: web.Request, body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Answer:
    accepted = listed(request.headers, "Accept-Encoding")
    return _coded(*await compressed(body, accepted, guarded(request).turns), headers)


def _answer_now(asked: Asked, body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Answer:
    coded = compressed_now(body, listed(asked.headers, "Accept-Encoding"))
    if coded is None:
        raise NotEarly
    return _coded(*coded, headers)


def _coded(body: bytes, coding: str | None, headers: Mapping[str, str]) -> Answer:
    coded = {} if coding is None else {"Content-Encoding": coding}
    return Answer(200, {**headers, "Content-Type": JSON, **_CACHING, **coded}, body)


def _etag_header(item: Item) -> dict[str, str]:
    return {"ETag": f'W/"{item.cursor}"'}  # weak: it names the round, in any content coding


def _not_modified(asked: Asked, item: Item) -> Answer | None:
    """Return the answer to a client that has this round."""
    etag = _etag_header(item)
    is_same = is_known(etag["ETag"], listed(asked.headers, "If-None-Match"))
    return Answer(304, _CACHING | etag) if is_same else None


def _page_headers(request: web.Request, page: HistoryPage) -> dict[str, str]:
    headers = {} if page.complete else {"X-History-Complete": "false"}
    if page.next_before is not None:
        headers |= _link(str(request.rel_url.update_query(before=str(page.next_before))))
    return headers


def _next_target(asked: Asked, before: str) -> str:
    """Return the target of a plain request with another ``before``."""
    parameters = [f"{name}={before if name == 'before' else value}" for name, value in asked.query.items()]
    if "before" not in asked.query:
        parameters.append(f"before={before}")
    return f"{asked.path}?{'&'.join(parameters)}"


def _link(next_page: str) -> dict[str, str]:
    return {"Link": f'<{next_page}>; rel="next"'}


def _with_value(item: Item, member: str) -> bytes:
    """Add a member of a round's extras to its JSON, as the string ``value``."""
    try:
        value = msgspec.json.decode(item.round.extras, type=dict[str, object]).get(member)
    except msgspec.MsgspecError:
        value = None
    return b'%b,"value":%b}' % (item.json[:-1], msgspec.json.encode(None if value is None else str(value)))


def _cursor(query: Mapping[str, str], name: str) -> Cursor | None:
    return Cursor.parse(query[name]) if name in query else None
