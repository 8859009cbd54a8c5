"""Credentials that relays refused: counted per address and credential, and reported to the audit log.

Owns what is kept of a refused credential: the id of the key where it is known, else the first digits of a hash that
cannot be inverted; never the secret. Strangers cause these entries, so their number is bounded: in memory, in each
report, and by the size of their stream.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog

from auth.credentials import Presented
from auth.key_ring import KeyRing
from auth.key_secret import digest_of, is_secret
from relay.audit.audit_entry import Actor, AuditEntry, time_of
from relay.audit.audit_trail import NatsAuditTrail
from relay.config.admin_sections import AuditSettings
from roundlog.client.connection import Connection
from roundlog.log_errors import LogError
from roundlog.log_settings import LogSettings

log = structlog.get_logger()

AUDITED: Final = frozenset({"invalid_credential", "invalid_token", "not_allowed_origin", "ambiguous_credential"})
"""The reasons that are about a credential. A game that a key does not cover is no attack."""
_KINDS: Final = 1_000
_ENTRIES: Final = 20
"""Entries of one report. What comes after them is one entry, with its count."""
_DIGITS: Final = 8
"""Hexadecimal digits of a hash: enough to compare with the hash of a key, and 32 of 256 bits."""
_ATTRIBUTE: Final = "_refused_credential"


def mark(error: Exception, presented: Presented | None, keys: KeyRing) -> None:
    """Note on an error which credential was refused, for `RefusedCredentials.add`."""
    if presented is None:
        return
    shown: str = presented.kind  # an invalid token or a malformed key says nothing that can be relied on
    if presented.kind == "key" and is_secret(presented.secret):
        digest = digest_of(presented.secret)
        shown = "sha256:" + digest.hex()[:_DIGITS]
        known = keys.owner_of(digest)
        if known is not None:
            shown = f"key:{known}"
    setattr(error, _ATTRIBUTE, shown)


def marked(error: Exception) -> str:
    """Return what `mark` noted; empty for nothing."""
    return getattr(error, _ATTRIBUTE, "")


class RefusedCredentials:
    """The refused credentials of one relay that were not reported yet."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.lost = 0
        """How many were not reported, since there were too many kinds or NATS was away."""
        self.settings = AuditSettings()
        """Of their stream, for the relay that makes it."""
        self._clock = clock
        self._found: dict[tuple[str, str, str], tuple[int, float, float]] = {}
        self._left_out = 0

    def add(self, reason: str, address: str, error: Exception) -> None:
        """Count a refused credential."""
        if reason not in AUDITED:
            return
        kind = (reason, address, marked(error))
        now = self._clock()
        count, first, _ = self._found.get(kind, (0, now, now))
        if count or len(self._found) < _KINDS:
            self._found[kind] = (count + 1, first, now)
        else:
            self._left_out += 1

    @property
    def waits(self) -> bool:
        """Whether there is something to report."""
        return bool(self._found)

    async def report(self, connection: Connection, nats: LogSettings, relay: str) -> None:
        """Store what was counted since the last report. Best effort: what cannot be stored is counted as lost."""
        if not self._found:
            return
        trail = NatsAuditTrail(connection, self.settings, replicas=nats.replicas, create=nats.create)
        found, left_out = self._found, self._left_out
        self._found, self._left_out = {}, 0
        most_first = sorted(found.items(), key=lambda item: -item[1][0])
        waiting = sum(count for count, _, _ in found.values()) + left_out
        actor = Actor("relay", relay)
        try:
            for (reason, address, shown), (count, first, last) in most_first[:_ENTRIES]:
                detail = {"reason": reason, "count": count, "first": time_of(first), "last": time_of(last)}
                await trail.record_refused(_entry(actor, address, shown, detail))
                waiting -= count
            if waiting:
                await trail.record_refused(_entry(actor, "", "", {"reason": "others", "count": waiting}))
        except LogError as error:
            self.lost += waiting
            log.warning("refused_credentials_not_audited", count=waiting, error=str(error))


def _entry(actor: Actor, address: str, shown: str, detail: dict[str, object]) -> AuditEntry:
    entry = AuditEntry.of_change(actor, "credential.refused", shown, detail=detail)
    return entry.at_address(address)
