"""The verbs of administration: create, change, rotate and delete keys, revoke tokens, take over other stores.

One implementation for commands and the admin API. Owns the order of a change: read, check, record in the audit log,
write on the condition that nobody else has written. Does not know which store it works on.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

from auth.key import InvalidKeys, Key, StoredSecret
from auth.key_members import check_id, time_text
from auth.key_secret import generate, stored
from auth.redact import redact
from auth.revocations import Revocation
from auth.stores.key_store import (
    Conflict,
    EditableKeyStore,
    StoreDenied,
    StoreMissing,
    StoreUnavailable,
    UnreadableEntry,
)
from relay.admin.admin_errors import (
    AuditUnavailable,
    IdTaken,
    InvalidChange,
    NotPermittedInStore,
    PreconditionFailed,
    ReadOnlyStore,
    RevisionDiffers,
    StoreAway,
    UnknownKey,
    UnreadableKey,
)
from relay.admin.chosen_store import KeysByHand
from relay.admin.key_document import check_games, created, document_of, patched, rotated, same_but_for_labels
from relay.audit.audit_entry import Actor, AuditEntry
from relay.audit.audit_trail import AuditTrail
from roundlog.log_errors import LogError
from rounds import Catalogue

_TRIES: Final = 2
"""A change that somebody else's change has crossed is made again, once."""
OVERLAP_S: Final = 24 * 3600.0
"""How long a replaced secret stays valid by default: a day, in which a client can be changed."""
LONGEST_OVERLAP_S: Final = 90 * 86_400.0
REVOKED_S: Final = 24 * 3600.0
"""How long a revocation is kept by default: longer than any token that an identity provider should issue."""
LONGEST_REVOKED_S: Final = 90 * 86_400.0

ImportResult = Literal["created", "unchanged", "differs", "same_secret"]


class StoredKey(NamedTuple):
    """A key, and the revision that a change of it can be conditional on."""

    key: Key
    revision: int


class NewSecret(NamedTuple):
    """A key with a secret that was just made; it cannot be had again."""

    key: Key
    revision: int
    secret: str


class Imported(NamedTuple):
    """What became of one key of another store."""

    key_id: str
    result: ImportResult
    detail: str = ""


class KeyAdmin:
    """Changes keys in the name of one actor."""

    def __init__(
        self,
        store: EditableKeyStore,
        audit: AuditTrail,
        actor: Actor,
        catalogue: Catalogue,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._audit = audit
        self._actor = actor
        self._catalogue = catalogue
        self._clock = clock

    def _check_editable(self) -> None:
        """Refuse a change before it is recorded."""
        store: object = self._store
        if isinstance(store, KeysByHand):
            raise ReadOnlyStore(store.name)

    async def all(self) -> list[Key]:
        """Return all keys by id; raise `StoreAway`."""
        return (await self.all_and_faults())[0]

    async def all_and_faults(self) -> tuple[list[Key], list[str]]:
        """Return all keys by id, and a sentence for each entry that is no key; raise `StoreAway`."""
        try:
            found = await self._store.load()
            return sorted(found.keys, key=lambda key: key.id), [found.faults[name] for name in sorted(found.faults)]
        except StoreMissing:  # the first key makes it
            return [], []
        except StoreUnavailable as error:
            raise _failed(error) from error

    async def get(self, key_id: str) -> StoredKey:
        """Return a key; raise `UnknownKey`, `UnreadableKey` or `StoreAway`."""
        try:
            found = await self._store.read(key_id) if _may_be_id(key_id) else None
        except StoreUnavailable as error:
            raise _failed(error) from error
        except UnreadableEntry as error:
            raise UnreadableKey(str(error), error.revision) from error
        if found is None:
            raise UnknownKey(key_id, [key.id for key in await self.all()])
        return StoredKey(*found)

    async def create(self, members: Mapping[str, Any]) -> NewSecret:
        """Create a key with a new secret.

        Args:
            members: See `relay.admin.key_document.AT_CREATION`; ``id`` is required.

        Raises:
            InvalidChange, IdTaken, AuditUnavailable, StoreAway: Nothing was created.
        """
        self._check_editable()
        secret, stored_secret = _new_secret(members.get("kind") or "private", test=bool(members.get("test")))
        key = created(members, stored_secret, now=self._clock())
        check_games(key, self._catalogue)
        if await self._exists(key.id):
            raise IdTaken("key", key.id)
        try:
            revision = await self._write("key.create", None, key, revision=0)
        except Conflict:
            raise IdTaken("key", key.id) from None
        return NewSecret(key, revision, secret)

    async def change(
        self, key_id: str, patch: Mapping[str, Any], *, revision: int | None = None, action: str = "key.set"
    ) -> StoredKey:
        """Change members of a key; one that is so already stays as it is.

        Args:
            key_id: Which key.
            patch: See `relay.admin.key_document.patched`.
            revision: Change it only when it has this revision; None: in any.
            action: What the audit log calls it.

        Raises:
            UnknownKey, InvalidChange, RevisionDiffers, AuditUnavailable, StoreAway: Nothing was changed, except that
                after `StoreAway` this may not be known.
        """

        def edit(key: Key) -> Key:
            changed = patched(key, patch)
            if (changed.games, changed.types) != (key.games, key.types):
                check_games(changed, self._catalogue)
            return changed

        return await self._change(key_id, action, edit, revision)

    async def disable(self, key_id: str, *, revision: int | None = None) -> StoredKey:
        """Refuse a key until `enable`; raise as `change` does."""
        return await self.change(key_id, {"disabled": True}, revision=revision, action="key.disable")

    async def enable(self, key_id: str, *, revision: int | None = None) -> StoredKey:
        """Accept a disabled key again; raise as `change` does."""
        return await self.change(key_id, {"disabled": False}, revision=revision, action="key.enable")

    async def rotate(self, key_id: str, *, overlap_s: float = OVERLAP_S, revision: int | None = None) -> NewSecret:
        """Give a key a new secret; its old ones stay valid for `overlap_s` seconds. Raises as `change` does."""
        if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
            raise InvalidChange(f"an overlap of {overlap_s:g} s is not allowed; it is from 0 to 90 days")
        key, _ = await self.get(key_id)
        secret, stored_secret = _new_secret(key.kind, test=key.test)

        def edit(key: Key) -> Key:
            return rotated(key, stored_secret, now=self._clock(), overlap_s=overlap_s)

        changed, written = await self._change(key_id, "key.rotate", edit, revision)
        return NewSecret(changed, written, secret)

    async def delete(self, key_id: str, *, revision: int | None = None) -> None:
        """Remove a key; raise as `change` does."""
        for tries in range(_TRIES, 0, -1):
            try:
                key, found = await self._expected(key_id, revision)
                before = document_of(key)
            except UnreadableKey as error:  # it can only be deleted
                before, found = {"unreadable": str(error)}, error.revision
            entry = AuditEntry.of_change(self._actor, "key.delete", key_id, before=before)
            await recorded(self._audit, entry)
            try:
                await self._store.delete(key_id, revision=found)
            except Conflict:
                await self._note_failure(entry, "failed", "the key was changed meanwhile")
                if revision is not None or tries == 1:
                    raise RevisionDiffers(key_id) from None
                continue
            except StoreUnavailable as error:
                await self._note_failure(entry, "failed" if isinstance(error, StoreDenied) else "unknown", str(error))
                raise _failed(error, changing=True) from error
            return

    async def revoke(
        self,
        what: Literal["token", "subject"],
        value: str,
        *,
        for_s: float = REVOKED_S,
        only_issued_before_now: bool = False,
    ) -> Revocation:
        """Refuse one stream token, or all of a subject's, and end the links that were opened with them.

        Args:
            what: Whether `value` is a token's ``jti`` or a subject.
            value: Which one.
            for_s: How long, in seconds.
            only_issued_before_now: Of a subject: accept tokens that are issued from now on.

        Raises:
            InvalidChange, AuditUnavailable, StoreAway: Nothing was revoked, except that after `StoreAway` this may not
                be known.
        """
        self._check_editable()
        if not 0 < for_s <= LONGEST_REVOKED_S:
            raise InvalidChange(f"{for_s:g} s is not allowed; a revocation is kept for up to 90 days")
        _check_revoked(what, value)
        if only_issued_before_now and what == "token":
            raise InvalidChange("only a subject can have tokens that are issued later")
        now = self._clock()
        revocation = Revocation(what, value, now + for_s, now if only_issued_before_now else None)
        detail = {"until": time_text(revocation.until)}
        if revocation.issued_before is not None:
            detail["issued_before"] = time_text(revocation.issued_before)
        entry = AuditEntry.of_change(self._actor, f"{what}.revoke", value, detail=detail)
        await recorded(self._audit, entry)
        try:
            await self._store.revoke(revocation)
        except StoreUnavailable as error:
            await self._note_failure(entry, "failed" if isinstance(error, StoreDenied) else "unknown", str(error))
            raise _failed(error, changing=True) from error
        return revocation

    async def take_over(self, keys: Iterable[Key], *, dry_run: bool) -> list[Imported]:
        """Create keys of another store, with the hashes of their secrets. Keys that are there already stay as they are.

        Raises:
            AuditUnavailable, StoreAway: Keys before the one that failed were created; the rest was not.
        """
        self._check_editable()
        there = {key.id: key for key in await self.all()}
        owners = {secret.digest: key.id for key in there.values() for secret in key.secrets}
        results = []
        for key in keys:
            result = _import_result(key, there, owners)
            if result.result == "created" and not dry_run:
                try:
                    await self._write("key.import", None, key, revision=0)
                except Conflict:
                    result = Imported(key.id, "differs", "it was created by somebody else meanwhile")
            results.append(result)
        return results

    async def _exists(self, key_id: str) -> bool:
        try:
            return await self._store.read(key_id) is not None
        except StoreUnavailable as error:
            raise _failed(error) from error
        except UnreadableEntry:
            return True

    async def _expected(self, key_id: str, revision: int | None) -> StoredKey:
        self._check_editable()
        found = await self.get(key_id)
        if revision is not None and found.revision != revision:
            raise PreconditionFailed(key_id)
        return found

    async def _change(self, key_id: str, action: str, edit: Callable[[Key], Key], revision: int | None) -> StoredKey:
        for _ in range(_TRIES):
            key, found = await self._expected(key_id, revision)
            changed = edit(key)
            if changed == key:
                return StoredKey(key, found)
            try:
                return StoredKey(changed, await self._write(action, key, changed, revision=found))
            except Conflict:
                if revision is not None:
                    raise PreconditionFailed(key_id) from None
        raise RevisionDiffers(key_id)

    async def _write(self, action: str, before: Key | None, after: Key, *, revision: int) -> int:
        entry = AuditEntry.of_change(
            self._actor,
            action,
            after.id,
            before=None if before is None else document_of(before),
            after=document_of(after),
        )
        await recorded(self._audit, entry)
        try:
            return await self._store.write(after, revision=revision)
        except Conflict:
            await self._note_failure(entry, "failed", "the key was changed meanwhile")
            raise
        except StoreUnavailable as error:
            await self._note_failure(entry, "failed" if isinstance(error, StoreDenied) else "unknown", str(error))
            raise _failed(error, changing=True) from error

    async def _note_failure(self, entry: AuditEntry, outcome: Literal["failed", "unknown"], reason: str) -> None:
        """Record that a change was not made, or may not have been; the caller's error is what counts."""
        with suppress(LogError):
            await self._audit.record(entry.but(outcome, reason))


async def recorded(audit: AuditTrail, entry: AuditEntry) -> None:
    """Store the entry of a change that is about to be made; raise `AuditUnavailable` when it may not be stored."""
    try:
        await audit.record(entry)
    except LogError as error:
        raise AuditUnavailable(str(error)) from error


def _failed(error: StoreUnavailable, *, changing: bool = False) -> NotPermittedInStore | StoreAway:
    """Return what to raise for an error of the store."""
    if isinstance(error, StoreDenied):
        return NotPermittedInStore(str(error))
    return StoreAway(str(error), outcome_unknown=changing)


def _may_be_id(key_id: str) -> bool:
    """Whether a key may have this id. Others are never looked for: to a store they may mean several entries."""
    try:
        check_id("keys", key_id)
    except InvalidKeys:
        return False
    return True


def _check_revoked(what: Literal["token", "subject"], value: str) -> None:
    """Refuse what names no token and no subject; the value is stored and shown, so a secret is refused too."""
    if value.startswith("eyJ"):
        raise InvalidChange("this is a whole token; give its jti, which is in the log line link_opened")
    if redact(value) != value:
        raise InvalidChange(f"the {what} to revoke holds a secret; to take a key back, disable or rotate the key")
    if not value or len(value) > 256 or not value.isprintable():
        raise InvalidChange(f"the {what} to revoke must be 1 to 256 printable characters")


def _new_secret(kind: object, *, test: bool) -> tuple[str, StoredSecret]:
    if kind not in ("private", "public"):
        raise InvalidChange(f"kind {str(kind)[:40]!r} is not allowed; it is private or public")
    secret, _ = generate("private" if kind == "private" else "public", test=test)
    return secret, stored(secret)


def _import_result(key: Key, there: Mapping[str, Key], owners: Mapping[bytes, str]) -> Imported:
    known = there.get(key.id)
    if known is not None:
        if same_but_for_labels(known, key):
            return Imported(key.id, "unchanged")
        return Imported(key.id, "differs", "the store has another key with this id; it was not changed")
    for secret in key.secrets:
        if (owner := owners.get(secret.digest)) is not None:
            return Imported(key.id, "same_secret", f"the store has this secret as key {owner!r}")
    return Imported(key.id, "created")
