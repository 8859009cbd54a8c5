"""What an answer over HTTP says about limits: headers, and the end of a connection that sends wrong credentials."""

from aiohttp import web

from relay.errors import Quota, TooManyRequests
from relay.http.connections.guarded import guarded
from relay.http.connections.quick_refusals import headers_of

_QUOTA = web.RequestKey("quota", Quota)


def show_quota(request: web.Request, quota: Quota | None) -> None:
    """Send the state of a limit with the answer to a request, in place of that of another one; None: change nothing."""
    if quota is not None:
        request[_QUOTA] = quota


def note_refusal(request: web.Request, refusal: Exception) -> None:
    """Send the state of the limit that refused a request with its answer, and close the connection if that is due."""
    if not isinstance(refusal, TooManyRequests):
        return
    show_quota(request, refusal.quota)
    if refusal.closes:
        guarded(request).answer_is_last()


def quota_headers(request: web.Request) -> dict[str, str]:
    """Return the headers that say how much of the limit is free that `show_quota` was given."""
    quota = request.get(_QUOTA)
    return {} if quota is None else headers_of(quota)
