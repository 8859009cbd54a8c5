"""The stored form of keys and revocations in NATS and PostgreSQL: JSON with a version. Pure.

A relay refuses an entry that has a member or a version that it does not know: the member may restrict the key. Such an
entry is no key, and the others are not affected. So relays are upgraded before the tools that write new members;
members that are not set are not written. Decided in docs/adr/0025-key-stores-and-staleness.md
"""

from typing import Any, Final, Literal

import msgspec

from auth.key import InvalidKeys, Key
from auth.key_members import checked_key, members_of, shown
from auth.redact import redact
from auth.revocations import Revocation

FORMAT: Final = 1
_VERSION: Final = "format"


class _Revoked(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    what: Literal["token", "subject"]
    value: str
    until: float
    issued_before: float | None = None


def key_json(key: Key) -> bytes:
    """Return the stored form of a key. Its id is the name of the entry."""
    return msgspec.json.encode({_VERSION: FORMAT, **members_of(key)})


def key_of_json(where: str, key_id: str, data: bytes | str) -> Key:
    """Read the stored form of a key; `where` names the store, for errors.

    Raises:
        InvalidKeys: It is not JSON, of another version, or has a member that is unknown or not allowed.
    """
    try:
        members = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidKeys(f"{where}: key {redact(key_id)!r} is not a JSON object: {redact(str(error))}") from None
    _check_version(f"{where}: key {redact(key_id)!r}", members.pop(_VERSION, None))
    return checked_key(where, key_id, members)


def revocation_json(revocation: Revocation) -> bytes:
    """Return the stored form of a revocation."""
    return msgspec.json.encode(
        _Revoked(FORMAT, revocation.what, revocation.value, revocation.until, revocation.issued_before)
    )


def revocation_of_json(where: str, data: bytes | str) -> Revocation:
    """Read the stored form of a revocation.

    Raises:
        InvalidKeys: It has another form, or is of another version.
    """
    try:
        found = msgspec.json.decode(data, type=_Revoked)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidKeys(f"{where}: a revocation cannot be read: {redact(str(error))}") from None
    _check_version(f"{where}: a revocation", found.format)
    return Revocation(found.what, found.value, found.until, found.issued_before)


def _check_version(at: str, version: object) -> None:
    if version != FORMAT or isinstance(version, bool):
        given = shown(version) if isinstance(version, str) else redact(str(version))[:20]
        raise InvalidKeys(f"{at} has format {given}, not {FORMAT}; upgrade the relay, or correct the entry")
