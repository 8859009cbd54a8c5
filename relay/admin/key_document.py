"""A key as commands and the admin API show and take it: JSON without hashes. Pure.

Owns which members can be changed and how a change is written: as a merge patch (RFC 7396), in which null takes a member
back to its default. What is allowed in a member is decided in `auth.key_members`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any, Final, Literal

from auth.key import InvalidKeys, Key, StoredSecret
from auth.key_members import ALLOWED, checked_key, members_of, shown, time_text
from relay.admin.admin_errors import InvalidChange
from rounds import Catalogue

EDITABLE: Final = ("name", "games", "types", "allowed_origins", "limits", "addresses", "expires_at", "disabled")
"""The members that a patch may have."""
AT_CREATION: Final = ("id", "kind", "test", *EDITABLE)
Status = Literal["active", "disabled", "expired"]

_SLUG_OF_NAME: Final = re.compile(r"[^a-z0-9]+")


def document_of(key: Key) -> dict[str, Any]:
    """Return all members of a key, without its hashes: lists are sorted, null means none or all."""
    return {
        "id": key.id,
        "kind": key.kind,
        "test": key.test,
        "name": key.name,
        "games": None if key.games is None else sorted(key.games),
        "types": sorted(key.types),
        "allowed_origins": sorted(key.allowed_origins),
        "limits": {name: limit for name, limit in asdict(key.limits).items() if limit is not None},
        "addresses": [str(network) for network in key.addresses],
        "created_at": time_or_none(key.created_at),
        "expires_at": time_or_none(key.expires_at),
        "disabled": key.disabled,
        "secrets": [{"prefix": secret.prefix, "expires_at": time_or_none(secret.expires_at)} for secret in key.secrets],
    }


def status_of_key(key: Key, now: float | None = None) -> Status:
    """Return in one word whether a key can be used."""
    if key.disabled:
        return "disabled"
    return "active" if key.is_valid(now) else "expired"


def created(members: Mapping[str, Any], secret: StoredSecret, *, now: float) -> Key:
    """Make a new key of `AT_CREATION` members; raise `InvalidChange` when they are not allowed."""
    _check_names(members, AT_CREATION)
    others = {name: value for name, value in members.items() if name != "id" and value is not None}
    key = _checked(members["id"], {**others, **_written(secret), "created_at": time_text(int(now))})
    if key.expires_at is not None and key.expires_at <= now:
        raise InvalidChange(f"expires_at {time_text(key.expires_at)} is in the past")
    return key


def patched(key: Key, patch: Mapping[str, Any]) -> Key:
    """Return a key with changed members; raise `InvalidChange` when they are not allowed."""
    _check_names(patch, EDITABLE)
    members = members_of(key)
    for name, value in patch.items():
        if name == "limits" and isinstance(value, Mapping):
            limits = {**members.get("limits", {}), **value}
            members[name] = {limit: number for limit, number in limits.items() if number is not None}
        elif value is None:
            members.pop(name, None)
        else:
            members[name] = value
    # A private key without origins, or a key without addresses, has no such member.
    for name in ("allowed_origins", "types", "addresses"):
        if members.get(name) == []:
            del members[name]
    return _checked(key.id, members)


def rotated(key: Key, secret: StoredSecret, *, now: float, overlap_s: float) -> Key:
    """Return a key with a new secret, while its old ones are valid for `overlap_s` more seconds, or less."""
    until = float(int(now + overlap_s))
    old = tuple(
        replace(one, expires_at=until if one.expires_at is None else min(one.expires_at, until))
        for one in key.secrets
        if overlap_s > 0 and (one.expires_at is None or one.expires_at > now)
    )
    return _checked(key.id, members_of(replace(key, secrets=(secret, *old))))


def check_games(key: Key, catalogue: Catalogue) -> None:
    """Raise `InvalidChange` for a game or type that is not in the catalogue: it would match no rounds."""
    types = {game.type for game in catalogue.games.values()}
    for member, given, known in (("games", key.games or (), catalogue.slugs), ("types", key.types, types)):
        for slug in sorted(given):
            if slug not in known:
                near = get_close_matches(slug, known, n=3)
                others = f"similar: {', '.join(near)}" if near else f"known are: {', '.join(sorted(known))}"
                raise InvalidChange(f"{member} holds {slug!r}, which is not in the catalogue; {others}")


def same_but_for_labels(one: Key, other: Key) -> bool:
    """Whether two keys allow the same to the same secrets; the time of creation and prefixes may differ."""
    digests = [{secret.digest for secret in key.secrets} for key in (one, other)]
    return _without_labels(one) == _without_labels(other) and digests[0] == digests[1]


def id_of_name(name: str) -> str:
    """Return an id made of a name; empty when the name has nothing to make it of."""
    return _SLUG_OF_NAME.sub("-", name.lower()).strip("-")[:64].strip("-")


def _without_labels(key: Key) -> Key:
    return replace(key, created_at=None, secrets=())


def _written(secret: StoredSecret) -> dict[str, str]:
    return {"hash": f"sha256:{secret.digest.hex()}", "prefix": secret.prefix}


def _checked(key_id: object, members: Mapping[str, Any]) -> Key:
    if not isinstance(key_id, str):
        raise InvalidChange(f"id {shown(str(key_id))} is not text")
    try:
        return checked_key("keys", key_id, members)
    except InvalidKeys as error:
        # Names were checked; the list of all members has those that can only be given to a store.
        raise InvalidChange(str(error).removeprefix("keys: ").removesuffix(f"; allowed are {ALLOWED}")) from None


def _check_names(members: Mapping[str, Any], allowed: Iterable[str]) -> None:
    for name in members:
        if name not in allowed:
            raise InvalidChange(f"{shown(name)} is not a member that can be given; allowed are {', '.join(allowed)}")


def time_or_none(moment: float | None) -> str | None:
    """Return Unix seconds as RFC 3339; None for 0 and None, which mean never or not known."""
    return time_text(moment) if moment else None
