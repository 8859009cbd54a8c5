"""aiohttp's requests as plain values, for handlers that depend on aiohttp for their bodies or answers.

Owns nothing that is decided about a request: that is in `relay.http.early`.
"""

from typing import Final, cast

from aiohttp import HttpVersion11, web

from auth.credentials import Presented
from auth.grants import Grant
from relay.admission.caller import Caller
from relay.admission.gate import Admission
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import Quota
from relay.http.connections.guarded import GuardedHandler
from relay.http.early.answer import Answer
from relay.http.early.asked import Asked, caller_at
from relay.http.early.checks import accept, key_of

KEY_ID: Final = web.RequestKey("key_id", str)
"""Where a request has the id of the key whose credential was accepted."""
PROXIES: Final = web.AppKey("trusted_proxies", TrustedProxies)
_ASKED: Final = web.RequestKey("asked", Asked)


def asked_of(request: web.Request) -> Asked:
    """Return a request as the plain value that it has."""
    asked = request.get(_ASKED)
    if asked is None:
        asked = request[_ASKED] = _begun(request) or Asked(
            request.path_qs,
            request.path,
            request.query,
            request.headers,
            match=request.match_info,
            is_http11=request.version >= HttpVersion11,
            caller=caller_at(request.remote, request.headers, request.app[PROXIES]),
            connection=cast("GuardedHandler", request.protocol),
        )
    return asked


def _begun(request: web.Request) -> Asked | None:
    """Return a request that was begun early, of which something had to be waited for."""
    connection = request.protocol
    if not isinstance(connection, GuardedHandler):
        return None
    begun, connection.begun = connection.begun, None
    return begun if isinstance(begun, Asked) and begun.target == request.path_qs else None


def response_of(answer: Answer) -> web.Response:
    """Return an answer as aiohttp sends it."""
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body or None)


def caller_of(request: web.Request) -> Caller:
    """Return who sends a request."""
    return asked_of(request).caller


def presented_key(request: web.Request) -> Presented:
    """Return the API key of a request; raise as `key_of` does."""
    return key_of(asked_of(request))


def granted(
    request: web.Request, presented: Presented | None, admission: Admission, *, opens_link: bool = False
) -> Grant:
    """See `accept`."""
    grant = accept(asked_of(request), presented, admission, opens_link=opens_link)
    request[KEY_ID] = grant.key_id
    return grant


def restrict_origin(request: web.Request) -> None:
    """Make the answer readable by pages of its origin only: its key is for certain origins. See `cors_headers`."""
    asked_of(request).restricts_origin = True


def show_quota(request: web.Request, quota: Quota | None) -> None:
    """See `Asked.show`."""
    asked_of(request).show(quota)


def note_refusal(request: web.Request, refusal: Exception) -> None:
    """See `Asked.note_refusal`."""
    asked_of(request).note_refusal(refusal)
