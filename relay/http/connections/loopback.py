"""Requests of pages of this machine only: what `stream-relay dev` answers.

Listening on loopback keeps other machines out, but not their pages: a browser on this machine sends the requests of any
page to ``127.0.0.1``. With a name that an attacker's DNS resolves to ``127.0.0.1`` the page may even read the answers
(DNS rebinding). Such requests have the attacker's name in ``Host``, and others his ``Origin``.
"""

import re
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from auth.credentials import NotAllowedOrigin
from relay.errors import Misdirected

_NAME: Final = "localhost"
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?")


def loopback_only(*, origins: bool) -> Middleware:
    """Return a middleware that refuses requests with a ``Host`` that is not of this machine.

    Any port is allowed: one may be forwarded, as ``ssh -L`` does.

    Args:
        origins: Whether the ``Origin`` must be of this machine, too. Programs send none.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        for host in request.headers.getall("Host", ()):
            if not is_loopback(host):
                raise Misdirected(host)
        origin = request.headers.get("Origin")
        if origins and origin is not None and not _is_of_this_machine(origin):
            raise NotAllowedOrigin(f"pages of origin {origin[:100]!r} are not answered here, only those of localhost")
        return await handler(request)

    return check


def is_loopback(host: str) -> bool:
    """Whether ``host`` or ``host:port`` names this machine: ``localhost``, or an address of loopback."""
    found = _HOST.fullmatch(host.strip().lower())
    if found is None:
        return False
    name = found[1] or found[2]
    try:
        return name == _NAME or ip_address(name).is_loopback
    except ValueError:  # neither a name of ours nor an address
        return False


def _is_of_this_machine(origin: str) -> bool:
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and is_loopback(host)
