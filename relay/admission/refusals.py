"""Clients that were not let in: counted by reason and protocol, and logged, few lines of a kind.

Owns which errors are refusals: those about credentials, and those of an instance that takes no more. An error that a
client can correct in its request, such as an unknown game, is none.
"""

from collections import Counter
from typing import Final, Literal

import structlog

from auth.credentials import AmbiguousCredential
from relay.admission.caller import Caller
from relay.audit.refused_credentials import RefusedCredentials
from relay.config.log_limits import LineLimit
from relay.errors import TooManyRequests, Unavailable, refusal_of
from relay.usage.account import Accounts

log = structlog.get_logger()

Protocol = Literal["rest", "sse", "websocket", "proxy", "grpc"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("rest", "sse", "websocket", "proxy", "grpc")
REASONS: Final = (
    "ambiguous_credential",
    "identity_unavailable",
    "invalid_credential",
    "invalid_identity",
    "invalid_token",
    "not_allowed",
    "not_allowed_address",
    "not_allowed_origin",
    "private_key_in_browser",
    "rate_limited",
    "capacity",
    "draining",
    "log_unavailable",
    "key_store_unavailable",
)
"""Reasons that have a counter from the start: where there was none before, the first refusal would be no increase."""
_STATUSES: Final = (401, 403, 429, 503)
_LINES: Final = 5
"""Lines of one reason and protocol in 10 s. Each refused client may cause one."""


class Refusals:
    """The refusals of one relay."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        """Count nothing yet; `accounts`: those of the keys, where refusals are counted too."""
        self.counts: Counter[tuple[str, Protocol]] = Counter(
            {(reason, protocol): 0 for reason in REASONS for protocol in PROTOCOLS}
        )
        """How many clients were refused, by reason and protocol, since the start of this process."""
        self.credentials = RefusedCredentials()
        """For the audit log."""
        self._accounts = accounts
        self._limit = LineLimit(lines=_LINES)

    def add(self, error: Exception, protocol: Protocol, caller: Caller, *, key_id: str | None = None) -> None:
        """Count and log the error that a client gets, if it is a refusal; `key_id`: of its accepted credential."""
        refusal = refusal_of(error)
        if refusal is None or not (refusal.status in _STATUSES or isinstance(error, AmbiguousCredential)):
            return
        reason = error.reason if isinstance(error, Unavailable) else refusal.code
        self.counts[reason, protocol] += 1
        self.credentials.add(reason, caller.address, error)
        if key_id is not None and self._accounts is not None:
            self._accounts.of(key_id).refused += 1
        left_out = self._limit.allow((reason, protocol))
        if left_out is not None:
            more: dict[str, object] = {"left_out": left_out} if left_out else {}
            if isinstance(error, TooManyRequests):
                more["limit"] = error.limit
            log.info("client_refused", reason=reason, protocol=protocol, **caller._asdict(), **more)
