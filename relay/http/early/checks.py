"""Check a request before anything is allocated for it: the grant of its credential, and its parameters.

Owns the order: credential, parameters, games and filter. Does not know protocols.
"""

from typing import NamedTuple

from auth.credentials import Presented, find_key, required
from auth.grants import Grant
from relay.admission.gate import Admission
from relay.admission.requested import requested
from relay.http.early.asked import Asked
from relay.http.parameters import read_query
from relay.live.channels import Subscription
from rounds import Catalogue


class CheckedRequest(NamedTuple):
    """A checked request."""

    grant: Grant
    subscription: Subscription
    query: dict[str, str]  # the parameters of the path, each once


def key_of(asked: Asked) -> Presented:
    """Return the API key of a request. Only headers may carry it: URLs are logged.

    Raises:
        InvalidCredential: There is none.
        AmbiguousCredential: There are several.
    """
    return required(find_key(asked.headers, asked.query, allow_query=False), asked.query, tokens=False)


def accept(asked: Asked, presented: Presented | None, admission: Admission, *, opens_link: bool = False) -> Grant:
    """Return the grant of a request's credential, count the request, and its connection as that of a guest.

    Args:
        asked: The request.
        presented: Its credential.
        admission: Checks it.
        opens_link: The request opens a link: it is not counted, since links have limits of their own.

    Raises:
        TooManyRequests: The request is over a limit of its key or address.
        Unavailable: As many other guests are being served.
        InvalidCredential, InvalidToken, NotAllowedOrigin: See `Admission.grant`. The connection is that of a stranger.
    """
    if asked.grant is not None:  # it was begun early, and is continued
        return asked.grant
    grant = _grant(asked, presented, admission)
    count_request(asked, grant, admission, opens_link=opens_link)
    _look_for_browser(asked, presented, grant, admission)
    asked.grant = grant
    return grant


def count_request(asked: Asked, grant: Grant, admission: Admission, *, opens_link: bool = False) -> None:
    """Count a request with an accepted credential, and its connection as that of a guest.

    Raises:
        TooManyRequests: The request is over a limit of its key or address.
        Unavailable: As many other guests are being served.
    """
    limits = admission.of_clients
    count = limits.requests_left if opens_link else limits.request
    asked.show(count(grant, asked.caller.address))
    if not asked.connection.credential_accepted():
        raise admission.refusal("capacity")


def accept_stream(
    asked: Asked, found: Presented | None, admission: Admission, catalogue: Catalogue, parameters: tuple[str, ...]
) -> CheckedRequest:
    """Check the credential of a request for a stream, and the request; raise as `accept` and `check` do."""
    presented = required(found, asked.query, tokens=True)
    asked.grant = grant = _grant(asked, presented, admission)
    _look_for_browser(asked, presented, grant, admission)
    asked.show(admission.of_clients.requests_left(grant, asked.caller.address))
    return check(asked, grant, catalogue, parameters)


def check(asked: Asked, grant: Grant, catalogue: Catalogue, parameters: tuple[str, ...]) -> CheckedRequest:
    """Read the parameters of a request: `parameters`, and ``games`` where the path has no game or type.

    Raises:
        BadRequest: A parameter is unknown or malformed.
        UnknownGame, UnknownType, NotAllowed, InvalidFilter: See `requested`.
    """
    names = parameters if asked.match else ("games", *parameters)
    query = read_query(asked.query.items(), names, path=asked.match)
    return CheckedRequest(grant, requested(catalogue, grant.games, asked.match, query), query)


def _grant(asked: Asked, presented: Presented | None, admission: Admission) -> Grant:
    grant = admission.grant(presented, origin=asked.headers.get("Origin"), caller=asked.caller)
    asked.key_id = grant.key_id
    return grant


def _look_for_browser(asked: Asked, presented: Presented | None, grant: Grant, admission: Admission) -> None:
    """Mark a request of a browser that has a private key, for `warning_headers`; raise as `check_browser` does."""
    if presented is not None and admission.policy.check_browser(presented, grant, asked.headers):
        asked.has_private_key = True
