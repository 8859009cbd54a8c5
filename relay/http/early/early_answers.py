"""Answer requests from their head: streams, tokens, and rounds that are in memory.

aiohttp's request, task, middlewares and answer take several times as long as what is decided about these. Owns which
requests are answered so: plain ones (`relay.http.connections.plain_head`) for which nothing has to be waited. The same
code decides about them as about all others, and their answers are those of the usual way, to the byte.
Why: docs/adr/0043-links-without-the-web-framework.md
"""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import structlog
from multidict import CIMultiDict, MultiDict

from auth.credentials import find_key
from auth.key import InvalidCredential
from relay.admission.key_policy import FROM_BROWSERS
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import KeysUnavailable
from relay.http.connections.guarded import GuardedHandler
from relay.http.connections.plain_head import KnownHeads, PlainHead
from relay.http.connections.quick_refusals import TAKEN, QuickAnswer, QuickRefusals
from relay.http.early.answer import Answer, failed, head_of, refused
from relay.http.early.asked import Asked, NotEarly, caller_at
from relay.http.early.known_answers import KnownAnswers
from relay.http.early.stream_requests import StreamRequests
from relay.http.rest import Rest
from relay.http.takeover import TakenOver
from relay.http.tokens.token_routes import TokenRoutes
from relay.links.link_registry import LinkRegistry

log = structlog.get_logger()

_BROWSER_FIELDS: Final = frozenset(name.lower() for name in FROM_BROWSERS)
_NO_PARTS: Final[Mapping[str, str]] = MappingProxyType({})

Decide = Callable[[Asked], Answer | None]
"""Answers a request; None: it became a link. Raises what it is refused with."""


class EarlyAnswers:
    """Answers plain heads."""

    def __init__(
        self,
        registry: LinkRegistry,
        streams: StreamRequests,
        rest: Rest,
        tokens: TokenRoutes,
        proxies: TrustedProxies,
    ) -> None:
        """Answer as the handlers of aiohttp do.

        Args:
            registry: Has the admission, and knows whether the log is followed.
            streams: Decides requests for streams.
            rest: Answers with rounds.
            tokens: Makes stream tokens.
            proxies: Those that say from which address a request comes.
        """
        self._registry = registry
        self._rest = rest
        self._tokens = tokens
        self._admission = registry.admission
        self._refusals = registry.refusals
        self._streams = streams
        self._proxies = proxies
        self._heads = KnownHeads()
        self._known = KnownAnswers(registry)
        self._over_limits = QuickRefusals(self._admission, self._refusals, proxies)

    def answer(self, data: bytes, connection: GuardedHandler) -> QuickAnswer | None:
        """Return the answer to a request that is all of `data`; None when it is to be handled as usual."""
        if self._over_limits.is_active:
            refusal = self._over_limits.answer(data, connection.address)
            if refusal is not None:
                return refusal
        return self._known.answer(data, connection) or self._decided(data, connection)

    def _decided(self, data: bytes, connection: GuardedHandler) -> QuickAnswer | None:
        head = self._heads.read(data)
        if head is None or self._admission.draining:
            return None
        found = self._find(head)
        if found is None:
            return None
        decide, match = found
        asked = self._asked(head, match, connection)
        asked_at = time.time()
        try:
            answer = decide(asked)
        except TakenOver:
            return TAKEN
        except NotEarly:
            connection.begun = asked
            return None
        except Exception as error:  # noqa: BLE001 - what is no refusal is a bug of ours, which is logged
            answer = self._failed(asked, error)
        if answer is None:
            return TAKEN
        closes = connection.is_last
        answer_head = head_of(answer, asked, closes=closes)
        if head.method == "GET" and not closes:
            self._known.add(data, asked, answer, answer_head, connection.peer, asked_at=asked_at)
        return QuickAnswer(answer_head.at(asked.quota) + answer.body, closes)

    def _failed(self, asked: Asked, error: Exception) -> Answer:
        answer = refused(asked, error, self._refusals)
        if answer is None:
            log.error("request_failed", path=asked.path[:200], exc_info=error)
        return failed() if answer is None else answer

    def _find(self, head: PlainHead) -> tuple[Decide, Mapping[str, str]] | None:
        """Return what decides a request, and the variable parts of its path; None for those to be handled as usual."""
        _, first, *rest = head.path.split("/")
        if first == "api":
            found = self._find_answer(rest, head)
        elif first in ("ws", "sse") and head.method == "GET":
            found = self._find_stream(first, rest, head)
        else:
            return None
        if found is None or found[0] == self._tokens.issue_now or self._is_following:
            return found
        # Nothing has to be waited for to refuse a key that nobody has.
        return (self._refuse_key, found[1]) if not head.upgrades and self._has_unknown_key(head) else None

    @property
    def _is_following(self) -> bool:
        feed = self._registry.feed
        return feed.is_following and feed.connected

    def _find_answer(self, rest: list[str], head: PlainHead) -> tuple[Decide, Mapping[str, str]] | None:
        if head.upgrades:
            return None
        if head.method == "POST":
            is_plain = rest == ["auth", "token"] and self._has_plain_key(head.fields)
            return (self._tokens.issue_now, _NO_PARTS) if is_plain else None
        if rest == ["games"]:
            return self._rest.games_now, _NO_PARTS
        if rest[:1] == ["latest"] and len(rest) == 2:
            return self._rest.latest_now, {"game": rest[1]}
        match = _parts(rest[1:]) if rest[:1] == ["history"] else None
        return None if match is None else (self._rest.history_now, match)

    def _find_stream(self, first: str, rest: list[str], head: PlainHead) -> tuple[Decide, Mapping[str, str]] | None:
        match = _parts(rest)
        if match is None or (first == "ws") != head.upgrades:
            return None
        if first == "ws":
            return self._websocket, match
        # Whether a stream that ends is over may have to be asked of the log.
        return None if "to=" in head.query else (self._sse, match)

    def _has_plain_key(self, fields: Mapping[str, str]) -> bool:
        """Whether a request has one API key, of which its owner is not warned; others for tokens are rare."""
        secret = _key_of(fields)
        if secret is None:
            return False
        return not (secret.startswith("sk_") and not _BROWSER_FIELDS.isdisjoint(fields) and self._is_known(secret))

    def _has_unknown_key(self, head: PlainHead) -> bool:
        secret = None if head.query else _key_of(head.fields)
        return secret is not None and not self._is_known(secret)

    def _is_known(self, secret: str) -> bool:
        try:
            self._admission.keys.recognize(secret)
        except InvalidCredential:
            return False
        return True

    def _refuse_key(self, asked: Asked) -> None:
        presented = find_key(asked.headers, asked.query, allow_query=False)
        try:
            self._admission.policy.check_judged(None)
        except KeysUnavailable as error:
            raise NotEarly from error
        self._admission.grant(presented, origin=asked.headers.get("Origin"), caller=asked.caller)

    def _asked(self, head: PlainHead, match: Mapping[str, str], connection: GuardedHandler) -> Asked:
        headers = CIMultiDict(head.fields)
        caller = caller_at(connection.peer, headers, self._proxies)
        if self._proxies:
            connection.came_for(caller.address)
        return Asked(
            head.target,
            head.path,
            MultiDict(head.parameters()),
            headers,
            match=match,
            is_http11=True,
            caller=caller,
            connection=connection,
        )

    def _websocket(self, asked: Asked) -> None:
        wanted = self._streams.websocket(asked)
        self._streams.open_websocket(asked, wanted, self._streams.permit_now(asked, "websocket", wanted))

    def _sse(self, asked: Asked) -> None:
        wanted = self._streams.sse(asked)
        if isinstance(wanted, KeysUnavailable):
            self._streams.refuse_sse(asked, None, wanted)
        else:
            self._streams.open_sse(asked, wanted, self._streams.permit_now(asked, "sse", wanted))


def _parts(rest: list[str]) -> Mapping[str, str] | None:
    """Return the variable parts of a path of rounds: all games, those of a type, or one; None for another path."""
    if not rest:
        return _NO_PARTS
    if len(rest) == 1:
        return {"game": rest[0]}
    return {"type": rest[1]} if len(rest) == 2 and rest[0] == "type" else None


def _key_of(fields: Mapping[str, str]) -> str | None:
    """Return the API key of a request that has one in its headers, and nothing else that may be a credential."""
    secret, authorization = fields.get("x-api-key"), fields.get("authorization")
    if authorization is not None:
        scheme, _, bearer = authorization.partition(" ")
        if secret is not None or scheme.lower() != "bearer":
            return None
        secret = bearer.strip()
    return secret if secret and "." not in secret else None  # a JWT has dots
