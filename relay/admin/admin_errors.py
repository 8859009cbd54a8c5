"""The errors of administration.

AdminError
├── InvalidChange        what was asked for is not allowed
├── UnknownKey           there is no such key; the text has ids that look like it
├── UnreadableKey        the store has an entry of this id that is no key
├── UnknownAdmin         there is no such credential
├── IdTaken              a key or a credential with this id exists
├── RevisionDiffers      somebody else has changed the key since it was read
├── ReadOnlyStore        the configured store cannot be edited
├── NotPermitted         the user of NATS may not do it
├── NotPermittedInStore  the user of the database may not do it
├── AuditUnavailable     the change could not be recorded, so it was not made
└── StoreAway            the store or NATS does not answer

Each has the status and the code of the admin API, and the exit status of the commands.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, Final

from auth.key_members import shown
from relay.errors import RelayError

_AGAIN: Final = 3
"""Exit status of a command that can be repeated unchanged, later."""


class AdminError(RelayError):
    """Base of the errors of administration; ``str()`` is the sentence for the user."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    exit_status: ClassVar[int] = 1


class InvalidChange(AdminError):
    """What was asked for is not allowed. The text has the member, its value and what is allowed."""


class UnknownKey(AdminError):
    """There is no key with this id."""

    status = 404
    code = "unknown_key"

    def __init__(self, key_id: str, known: Iterable[str]) -> None:
        super().__init__(key_id)
        self.key_id = key_id
        ids = sorted(known)
        self.near = get_close_matches(key_id, ids, n=3, cutoff=0.5) or ids[:10]

    def __str__(self) -> str:
        there_are = f"there are: {', '.join(self.near)}" if self.near else "there are no keys yet"
        return f"there is no key {shown(self.key_id)}; {there_are}"


class UnreadableKey(AdminError):
    """The store has an entry of this id that is no key: of a newer version, or written by hand."""

    status = 409
    code = "unreadable_key"

    def __init__(self, reason: str, revision: int) -> None:
        super().__init__(reason)
        self.reason, self.revision = reason, revision

    def __str__(self) -> str:
        return f"{self.reason}; correct the entry where it is stored, or delete the key"


class UnknownAdmin(AdminError):
    """There is no admin credential with this id."""

    status = 404
    code = "unknown_admin"

    def __init__(self, admin_id: str, known: Iterable[str]) -> None:
        super().__init__(admin_id)
        self.admin_id, self.known = admin_id, sorted(known)

    def __str__(self) -> str:
        return f"there is no admin credential {self.admin_id!r}; there are: {', '.join(self.known) or 'none'}"


class IdTaken(AdminError):
    """A key or a credential with this id exists."""

    status = 409
    code = "id_taken"

    def __init__(self, what: str, taken: str) -> None:
        super().__init__(what, taken)
        self.what, self.taken = what, taken

    def __str__(self) -> str:
        return f"{self.what} {self.taken!r} exists already; choose another id, or change that one"


class RevisionDiffers(AdminError):
    """Somebody else has changed the key."""

    status = 409
    code = "conflict"

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"key {self.key_id!r} was changed by somebody else meanwhile; look at it and try again"


class PreconditionFailed(RevisionDiffers):
    """The key has another revision than the one that the request is for."""

    status = 412
    code = "precondition_failed"

    def __str__(self) -> str:
        return f"key {self.key_id!r} has another revision than If-Match names; read it again"


class ReadOnlyStore(AdminError):
    """The configured store cannot be edited."""

    status = 409
    code = "read_only_store"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"keys are in the store {self.name!r}, which is edited by hand; to change keys with commands, run "
            "stream-relay key import, then remove RELAY_AUTH_KEYS and RELAY_AUTH_KEYS_FILE or set RELAY_AUTH_STORE=nats"
        )


class NotPermitted(AdminError):
    """The user of NATS may not do what the change needs."""

    status = 503
    code = "not_permitted"

    def __init__(self, denied: str) -> None:
        super().__init__(denied)
        self.denied = denied

    def __str__(self) -> str:
        return (
            f"{self.denied}; use the NATS user for administration (RELAY_NATS_USER, "
            "RELAY_NATS_CREDS_FILE), which docs/admin.md describes"
        )


class AuditUnavailable(AdminError):
    """The change could not be recorded in the audit log, so it was not made."""

    status = 503
    code = "audit_unavailable"
    exit_status = _AGAIN

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing was changed, since the audit log cannot be written: {self.reason}"


class NotPermittedInStore(AdminError):
    """The user of the key store may not do what the change needs; nothing was changed."""

    status = 503
    code = "not_permitted"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; use the user for tools that edit keys (RELAY_AUTH_DSN), which docs/keys.md describes"


class StoreAway(AdminError):
    """The store does not answer."""

    status = 503
    code = "store_unavailable"
    exit_status = _AGAIN

    def __init__(self, reason: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.outcome_unknown = reason, outcome_unknown

    def __str__(self) -> str:
        known = "; whether the change was made is not known: look at the key" if self.outcome_unknown else ""
        return f"the key store cannot be reached: {self.reason}{known}"
