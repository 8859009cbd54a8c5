"""A request as a plain value, and what was decided about it: the same, whichever way its head was read.

Owns what handlers know of a request: they depend on neither aiohttp nor bytes. Does not decide anything.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from multidict import CIMultiDict, MultiMapping

from auth.grants import Grant  # noqa: TC001 - as everywhere
from relay.admission.caller import Caller
from relay.admission.refusals import Protocol as ClientProtocol
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import Quota, TooManyRequests
from relay.http.parameters import listed

_PROTOCOLS: Final[Mapping[str, ClientProtocol]] = {"ws": "websocket", "sse": "sse"}


class NotEarly(Exception):
    """Something has to be waited for: the usual way continues with the same `Asked`."""


class AskedConnection(Protocol):
    """The connection that a request came on: see `relay.http.connections.guarded`."""

    def credential_accepted(self) -> bool: ...
    def may_become_link(self) -> None: ...
    def became_link(self) -> None: ...
    def answer_is_last(self) -> None: ...


class Asked:
    """One request."""

    __slots__ = (
        "caller",
        "connection",
        "grant",
        "has_private_key",
        "headers",
        "is_http11",
        "key_id",
        "match",
        "path",
        "query",
        "quota",
        "restricts_origin",
        "target",
    )

    def __init__(
        self,
        target: str,
        path: str,
        query: MultiMapping[str],
        headers: MultiMapping[str],
        *,
        match: Mapping[str, str],
        is_http11: bool,
        caller: Caller,
        connection: AskedConnection,
    ) -> None:
        """Take a request about which nothing is decided.

        Args:
            target: Path and query as they were sent.
            path: The path, decoded.
            query: The parameters, decoded.
            headers: Names in any case.
            match: The variable parts of the path: ``game``, ``type``, or neither.
            is_http11: Whether it is of HTTP/1.1, and not of an older version.
            caller: Who sends it.
            connection: What it came on.
        """
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.match = match
        self.is_http11 = is_http11
        self.caller = caller
        self.connection = connection
        self.key_id: str | None = None
        """Of its accepted credential."""
        self.grant: Grant | None = None
        """What its credential allows, when it was accepted and the request counted."""
        self.quota: Quota | None = None
        """The state of the limit that its answer shows."""
        self.has_private_key = False
        """Whether a browser sends a private key, of which the answer warns."""
        self.restricts_origin = False
        """Whether only pages of its origin may read the answer."""

    @property
    def protocol(self) -> AskedConnection:
        """The handler of its connection: the name that aiohttp's requests have for it."""
        return self.connection

    @property
    def counted_as(self) -> ClientProtocol:
        """What it is counted as where it is refused."""
        return _PROTOCOLS.get(self.path.split("/", 2)[1], "rest")

    @property
    def upgrade_headers(self) -> MultiMapping[str]:
        """The headers that may ask for an upgrade. RFC 9110 section 7.8: not those of HTTP/1.0."""
        return self.headers if self.is_http11 else CIMultiDict()

    def show(self, quota: Quota | None) -> None:
        """Send the state of a limit with the answer, in place of that of another one; None: change nothing."""
        if quota is not None:
            self.quota = quota

    def note_refusal(self, refusal: Exception) -> None:
        """Send the state of the limit that refused it with its answer, and close the connection if that is due."""
        if isinstance(refusal, TooManyRequests):
            self.show(refusal.quota)
            if refusal.closes:
                self.connection.answer_is_last()


def caller_at(address: str | None, headers: MultiMapping[str], proxies: TrustedProxies) -> Caller:
    """Return who sends a request with these headers over a connection from `address`."""
    caller = Caller.of(address, headers.get("User-Agent"))
    if not proxies or not proxies.trusts(caller.address):
        return caller
    forwarded_for, forwarded = listed(headers, "X-Forwarded-For"), listed(headers, "Forwarded")
    return caller._replace(address=proxies.client(caller.address, forwarded_for, forwarded))
