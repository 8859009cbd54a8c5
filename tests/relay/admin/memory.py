"""A key store and an audit log in memory, which fail when a test wants that."""

from collections.abc import Callable
from dataclasses import replace
from typing import Self

from auth.key import Key
from auth.revocations import Revocation
from auth.stores.key_store import Conflict, Contents, StoreReceiver, StoreUnavailable
from relay.audit.audit_entry import AuditEntry
from roundlog.log_errors import LogUnavailable


class MemoryKeys:
    """An `auth.stores.key_store.EditableKeyStore` in memory."""

    name = "memory"

    def __init__(self, *keys: Key) -> None:
        self.keys: dict[str, tuple[Key, int]] = {key.id: (key, number) for number, key in enumerate(keys, 1)}
        self.revocations: list[Revocation] = []
        self.is_away = False
        self.between: Callable[[], None] | None = None
        """Called once, between the next read and what follows it: another operator."""
        self._revision = len(keys)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    def put(self, key: Key) -> None:
        """Store a key as another operator does."""
        self._revision += 1
        self.keys[key.id] = (key, self._revision)

    def edit(self, key_id: str, **members: object) -> None:
        """Change members of a key as another operator does."""
        self.put(replace(self.keys[key_id][0], **members))  # type: ignore[arg-type]

    async def load(self) -> Contents:
        self._answer()
        return Contents(tuple(key for key, _ in self.keys.values()), tuple(self.revocations))

    async def follow(self, receiver: StoreReceiver) -> None:
        receiver.replace(await self.load())

    async def read(self, key_id: str) -> tuple[Key, int] | None:
        self._answer()
        found = self.keys.get(key_id)
        if self.between is not None:
            between, self.between = self.between, None
            between()
        return found

    async def write(self, key: Key, *, revision: int) -> int:
        self._check(key.id, revision)
        self.put(key)
        return self._revision

    async def delete(self, key_id: str, *, revision: int) -> None:
        self._check(key_id, revision)
        del self.keys[key_id]

    async def revoke(self, revocation: Revocation) -> None:
        self._answer()
        self.revocations.append(revocation)

    def _check(self, key_id: str, revision: int) -> None:
        self._answer()
        if self.keys.get(key_id, (None, 0))[1] != revision:
            raise Conflict

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("memory does not answer")


class MemoryTrail:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.is_away = False

    async def record(self, entry: AuditEntry) -> None:
        if self.is_away:
            raise LogUnavailable("NATS at nats://here did not answer")
        self.entries.append(entry)

    @property
    def actions(self) -> list[str]:
        """What was recorded: the action, and the outcome of those that were not made."""
        return [f"{entry.action} {entry.outcome}" if entry.outcome else entry.action for entry in self.entries]
