"""Admin credentials: what the admin API accepts. Made and removed by commands, stored as hashes in NATS.

Owns their secrets, which have a form of their own, so that no API key is ever taken for one, and the stream ``ADMINS``,
which keeps the newest record of each. Relays do not read it.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from auth.key import InvalidKeys
from auth.key_members import check_id
from relay.admin.admin_errors import IdTaken, InvalidChange, RevisionDiffers, StoreAway, UnknownAdmin
from relay.admin.key_admin import recorded
from relay.admin.key_document import time_or_none
from relay.audit.audit_entry import Actor, AuditEntry
from relay.audit.audit_trail import AuditTrail
from roundlog.client.connection import Connection
from roundlog.log_errors import LogError
from roundlog.records.record_stream import RecordChanged, RecordStream, subject_token

STREAM: Final = "ADMINS"
PREFIX: Final = "admin_"
_SECRET: Final = re.compile(r"\Aadmin_[0-9a-f]{64}\Z")
_SHOWN: Final = 10
"""Characters that are stored and shown: the prefix and 16 of 256 bits."""


class AdminCredential(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a credential."""

    id: str
    digest: str  # SHA-256 of the secret, hexadecimal
    prefix: str
    created_at: float  # Unix seconds
    expires_at: float | None = None
    disabled: bool = False
    read_only: bool = False
    deleted: bool = False

    def is_valid(self, now: float) -> bool:
        """Whether it may be used at a time, in Unix seconds."""
        return not (self.disabled or self.deleted) and (self.expires_at is None or now < self.expires_at)

    def document(self) -> dict[str, Any]:
        """Return it without its hash, for people and the audit log."""
        return {
            "id": self.id,
            "prefix": self.prefix,
            "created_at": time_or_none(self.created_at),
            "expires_at": time_or_none(self.expires_at),
            "disabled": self.disabled,
            "read_only": self.read_only,
        }


class _Stored(NamedTuple):
    credential: AdminCredential
    revision: int


class AdminCredentials:
    """The admin credentials of an installation."""

    def __init__(self, connection: Connection, audit: AuditTrail, *, replicas: int, create: bool) -> None:
        self._stream = RecordStream(connection, admins_stream(replicas=replicas))
        self._audit = audit
        self._create = create

    async def all(self) -> list[AdminCredential]:
        """Return all credentials by id; raise `StoreAway`."""
        return [stored.credential for _, stored in sorted((await self._read()).items())]

    @staticmethod
    def find(secret: str, known: Iterable[AdminCredential]) -> AdminCredential | None:
        """Return which of `known` credentials a secret is of; None when there is none that is valid now."""
        digest = _digest(secret)
        for credential in known:
            if hmac.compare_digest(credential.digest, digest):
                return credential if credential.is_valid(time.time()) else None
        return None

    async def create(
        self, actor: Actor, admin_id: str, *, expires_at: float | None = None, read_only: bool = False
    ) -> tuple[AdminCredential, str]:
        """Create a credential; return it with its secret, which cannot be had again.

        Raises:
            InvalidChange, IdTaken, AuditUnavailable, StoreAway: Nothing was created.
        """
        with suppress(InvalidKeys):
            check_id("admin", admin_id)
            secret = PREFIX + secrets.token_hex(32)
            credential = AdminCredential(
                admin_id, _digest(secret), secret[:_SHOWN], int(time.time()), expires_at, read_only=read_only
            )
            revision = await self._revision_of_absent(admin_id)
            await self._write(actor, "admin.create", None, credential, revision)
            return credential, secret
        raise InvalidChange(f"id {admin_id[:64]!r} is not allowed; use 1 to 64 letters, digits, '.', '_' and '-'")

    async def disable(self, actor: Actor, admin_id: str, *, disabled: bool) -> AdminCredential:
        """Refuse a credential, or accept it again.

        Raises:
            UnknownAdmin, RevisionDiffers, AuditUnavailable, StoreAway: Nothing was changed.
        """
        stored = await self._get(admin_id)
        changed = msgspec.structs.replace(stored.credential, disabled=disabled)
        if changed != stored.credential:
            action = "admin.disable" if disabled else "admin.enable"
            await self._write(actor, action, stored.credential, changed, stored.revision)
        return changed

    async def delete(self, actor: Actor, admin_id: str) -> None:
        """Remove a credential; raise as `disable` does."""
        stored = await self._get(admin_id)
        gone = msgspec.structs.replace(stored.credential, deleted=True, digest="", prefix="")
        await self._write(actor, "admin.delete", stored.credential, gone, stored.revision)

    async def _get(self, admin_id: str) -> _Stored:
        known = await self._read()
        if admin_id not in known:
            raise UnknownAdmin(admin_id, known)
        return known[admin_id]

    async def _revision_of_absent(self, admin_id: str) -> int:
        """Return the revision that a new credential replaces: that of a deleted one, or 0."""
        stored = (await self._read(deleted=True)).get(admin_id)
        if stored is None:
            return 0
        if not stored.credential.deleted:
            raise IdTaken("admin credential", admin_id)
        return stored.revision

    async def _read(self, *, deleted: bool = False) -> dict[str, _Stored]:
        try:
            await self._stream.ensure(create=self._create)
            found = {}
            async for record in self._stream.read("admins.*"):
                credential = msgspec.json.decode(record.data, type=AdminCredential)
                if deleted or not credential.deleted:
                    found[credential.id] = _Stored(credential, record.sequence)
            return found
        except (LogError, msgspec.MsgspecError) as error:
            raise StoreAway(str(error)) from error

    async def _write(
        self, actor: Actor, action: str, before: AdminCredential | None, after: AdminCredential, revision: int
    ) -> None:
        entry = AuditEntry.of_change(
            actor,
            action,
            after.id,
            before=None if before is None else before.document(),
            after=None if after.deleted else after.document(),
        )
        await recorded(self._audit, entry)
        try:
            subject = f"admins.{subject_token(after.id)}"
            await self._stream.append(subject, msgspec.json.encode(after), revision=revision)
        except RecordChanged:
            with suppress(LogError):
                await self._audit.record(entry.but("failed", "the credential was changed meanwhile"))
            raise RevisionDiffers(after.id) from None
        except LogError as error:
            raise StoreAway(str(error), outcome_unknown=True) from error


def is_admin_secret(text: str) -> bool:
    """Whether `text` has the form of an admin secret."""
    return _SECRET.match(text) is not None


def admins_stream(*, replicas: int) -> Mapping[str, Any]:
    """Return the configuration of the stream: the newest record of each credential, for ever."""
    return {
        "name": STREAM,
        "subjects": ["admins.*"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_bytes": 4 << 20,
        "num_replicas": replicas,
        "allow_direct": True,
    }


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
