"""``POST /api/auth/token`` and ``GET /.well-known/jwks.json``.

Owns the order of a request for a token: credential, body, games, token. Which games may be named is decided in
`relay.admission.requested`, what a token says in `auth.tokens`.
"""

from typing import Final

import msgspec
from aiohttp import web

from auth.credentials import Presented
from auth.grants import Grant
from auth.identity.identity_rules import InvalidIdentity
from auth.identity.identity_token import is_jwt
from auth.tokens import TokenTooLong
from relay.admission.requested import games_of_type, named_games
from relay.errors import BadRequest
from relay.http.connections.expectations import read_expected_body
from relay.http.connections.guarded import SMALL_BODY_BYTES
from relay.http.early.answer import Answer
from relay.http.early.asked import Asked, NotEarly
from relay.http.early.checks import accept, count_request, key_of
from relay.http.error_body import JSON
from relay.http.parameters import read_query
from relay.http.request import asked_of, response_of
from relay.http.tokens.identities import Identities, SignedIn
from relay.http.tokens.token_answer import NOT_STORED, token_json
from relay.http.tokens.token_request import TokenRequest, read_token_request
from relay.links.link_registry import LinkRegistry
from rounds import Catalogue

_KEYS_MAX_AGE: Final = {"Cache-Control": "public, max-age=300"}
"""A new key is put beside the old one, and signs when every relay has it: so verifiers may keep keys for a while."""


class TokenRoutes:
    """The handlers of tokens."""

    def __init__(self, registry: LinkRegistry, catalogue: Catalogue, identities: Identities | None = None) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._identities = identities

    def table(self) -> list[web.RouteDef]:
        return [
            web.post("/api/auth/token", self.issue),
            web.get("/.well-known/jwks.json", self.keys),
        ]

    async def issue(self, request: web.Request) -> web.Response:
        """Make a stream token for a key, or for an identity."""
        asked = asked_of(request)
        presented = key_of(asked)
        read_query(asked.query.items(), ())
        signed_in = await self._accepted(asked, presented)
        wanted = read_token_request(request.content_type, bytes(await read_expected_body(request, SMALL_BODY_BYTES)))
        return response_of(self._issued(signed_in, wanted))

    def issue_now(self, asked: Asked) -> Answer:
        """Do as `issue` for a request without a body; raise `NotEarly` where an identity has to be waited for."""
        presented = key_of(asked)
        read_query(asked.query.items(), ())
        if self._is_identity(presented):
            raise NotEarly
        return self._issued(SignedIn(accept(asked, presented, self._registry.admission)), TokenRequest())

    def _issued(self, signed_in: SignedIn, wanted: TokenRequest) -> Answer:
        games = self._narrowed(signed_in.grant, wanted)
        try:
            token, expires_at = self._registry.admission.token(
                signed_in.grant, games=games, subject=wanted.subject, life_s=min(signed_in.life_s, wanted.life_s)
            )
        except TokenTooLong as error:
            raise BadRequest(str(error)) from error
        return Answer(200, NOT_STORED | {"Content-Type": JSON}, token_json(token, expires_at, games))

    async def keys(self, _request: web.Request) -> web.Response:
        """Answer with the public keys of our tokens; none are public with shared secrets."""
        body = msgspec.json.encode({"keys": self._registry.admission.public_keys()})
        return web.Response(body=body, content_type="application/json", headers=_KEYS_MAX_AGE)

    def _is_identity(self, presented: Presented) -> bool:
        return self._identities is not None and is_jwt(presented.secret)

    async def _accepted(self, asked: Asked, presented: Presented) -> SignedIn:
        admission = self._registry.admission
        if self._identities is None or not self._is_identity(presented):
            return SignedIn(accept(asked, presented, admission))
        with admission.identifying(asked.caller):
            signed_in = await self._identities.sign_in(presented.secret)
            if admission.revocations.refuses(signed_in.grant):
                raise InvalidIdentity("the identity was revoked; sign in again, or ask the operator")
        count_request(asked, signed_in.grant, admission)
        return signed_in

    def _narrowed(self, grant: Grant, asked: TokenRequest) -> frozenset[str] | None:
        """Return the games that the token is narrowed to; None when the request does not narrow it.

        Raises:
            UnknownGame, UnknownType, NotAllowed: See `named_games` and `games_of_type`.
        """
        if asked.games is None and asked.types is None:
            return None
        games = set() if asked.games is None else set(named_games(self._catalogue, grant.games, asked.games))
        for name in asked.types or ():
            games |= games_of_type(self._catalogue, grant.games, name)
        return frozenset(games)
