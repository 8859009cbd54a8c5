"""Check a request before anything is allocated for it: the grant of its credential, and its parameters.

Owns the order: credential, parameters, games and filter. Does not know protocols.
"""

from typing import Final, NamedTuple

from aiohttp import web

from auth.credentials import Presented, find_key, required
from auth.grants import Grant
from relay.admission.caller import Caller
from relay.admission.gate import Admission
from relay.admission.requested import requested
from relay.config.trusted_proxies import TrustedProxies
from relay.http.connections.guarded import guarded
from relay.http.connections.over_limit import show_quota
from relay.http.cors import warn_of_private_key
from relay.http.parameters import listed, read_query
from relay.live.channels import Subscription
from rounds import Catalogue

KEY_ID: Final = web.RequestKey("key_id", str)
"""Where a request has the id of the key whose credential was accepted."""


class CheckedRequest(NamedTuple):
    """A checked request."""

    grant: Grant
    subscription: Subscription
    query: dict[str, str]  # the parameters of the path, each once


PROXIES: Final = web.AppKey("trusted_proxies", TrustedProxies)


def caller_of(request: web.Request) -> Caller:
    """Return who sends a request."""
    caller = Caller.of(request.remote, request.headers.get("User-Agent"))
    proxies = request.app[PROXIES]
    if not proxies.trusts(caller.address):
        return caller
    forwarded_for, forwarded = listed(request.headers, "X-Forwarded-For"), listed(request.headers, "Forwarded")
    return caller._replace(address=proxies.client(caller.address, forwarded_for, forwarded))


def presented_key(request: web.Request) -> Presented:
    """Return the API key of a request. Only headers may carry it: URLs are logged.

    Raises:
        InvalidCredential: There is none.
        AmbiguousCredential: There are several.
    """
    return required(find_key(request.headers, request.query, allow_query=False), request.query, tokens=False)


def grant_of(request: web.Request, admission: Admission) -> Grant:
    """Return the grant of a request's API key; raise as `presented_key` and `granted` do."""
    return granted(request, presented_key(request), admission)


def granted(
    request: web.Request, presented: Presented | None, admission: Admission, *, opens_link: bool = False
) -> Grant:
    """Return the grant of a request's credential, count the request, and its connection as that of a guest.

    Args:
        request: The request.
        presented: Its credential.
        admission: Checks it.
        opens_link: The request opens a link: it is not counted, since links have limits of their own.

    Raises:
        TooManyRequests: The request is over a limit of its key or address.
        Unavailable: As many other guests are being served.
        InvalidCredential, InvalidToken, NotAllowedOrigin: See `Admission.grant`. The connection is that of a stranger.
    """
    grant = admission.grant(presented, origin=request.headers.get("Origin"), caller=caller_of(request))
    request[KEY_ID] = grant.key_id
    counted(request, grant, admission, opens_link=opens_link)
    note_browser(request, presented, grant, admission)
    return grant


def counted(request: web.Request, grant: Grant, admission: Admission, *, opens_link: bool = False) -> None:
    """Count a request with an accepted credential, and its connection as that of a guest.

    Raises:
        TooManyRequests: The request is over a limit of its key or address.
        Unavailable: As many other guests are being served.
    """
    limits = admission.of_clients
    count = limits.requests_left if opens_link else limits.request
    show_quota(request, count(grant, caller_of(request).address))
    if not guarded(request).credential_accepted():
        raise admission.refusal("capacity")


def note_browser(request: web.Request, presented: Presented | None, grant: Grant, admission: Admission) -> None:
    """Mark a request of a browser that has a private key, for `warning_headers`; raise as `check_browser` does."""
    if presented is not None and admission.policy.check_browser(presented, grant, request.headers):
        warn_of_private_key(request)


def check_request(
    request: web.Request, grant: Grant, catalogue: Catalogue, parameters: tuple[str, ...]
) -> CheckedRequest:
    """Read the parameters of a request: `parameters`, and ``games`` where the path has no game or type.

    Raises:
        BadRequest: A parameter is unknown or malformed.
        UnknownGame, UnknownType, NotAllowed, InvalidFilter: See `requested`.
    """
    names = parameters if request.match_info else ("games", *parameters)
    query = read_query(request.query.items(), names, path=request.match_info)
    return CheckedRequest(grant, requested(catalogue, grant.games, request.match_info, query), query)
