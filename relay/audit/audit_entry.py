"""One entry of the audit log, as it is stored and shown. Pure, except for the clock and random numbers."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

import msgspec

Outcome = Literal["failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change."""

    kind: Literal["admin", "os_user", "relay"]
    """With an admin credential, or as a user of a machine; a relay reports refused credentials."""
    name: str
    """The id of the credential, or user and host."""
    address: str = ""
    """Where from; empty when it is not known."""


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry, as it is stored and shown."""

    id: str
    at: str  # RFC 3339 in UTC
    actor: str  # such as ``admin:ops`` or ``os_user:root@host``
    action: str  # such as ``key.create``
    address: str = ""
    target: str = ""  # the id of a key or credential, or what was revoked
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    outcome: Outcome | None = None  # of an earlier entry, `of`; a change without such an entry was made
    of: str = ""
    detail: dict[str, Any] | None = None

    @classmethod
    def of_change(
        cls,
        actor: Actor,
        action: str,
        target: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Self:
        """Make the entry of a change that is about to be made."""
        return cls(
            secrets.token_hex(8),
            time_of(time.time()),
            f"{actor.kind}:{actor.name}",
            action,
            address=actor.address,
            target=target,
            before=before,
            after=after,
            detail=detail,
        )

    def at_address(self, address: str) -> Self:
        """Return the entry with another address."""
        return msgspec.structs.replace(self, address=address)

    def but(self, outcome: Outcome, reason: str) -> Self:
        """Make the entry which says that the change was not made, or may not have been."""
        return msgspec.structs.replace(
            self,
            id=secrets.token_hex(8),
            at=time_of(time.time()),
            before=None,
            after=None,
            outcome=outcome,
            of=self.id,
            detail={"reason": reason},
        )


def time_of(moment: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
