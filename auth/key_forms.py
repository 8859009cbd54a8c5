"""The written forms of keys for people: one line for an environment variable, TOML for a file.

Owns the syntax of both. Which members a key has, and what is allowed in them, is in `auth.key_members`. Only hashes are
stored, so a leaked configuration gives no access. Pure.
"""

import tomllib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from auth.key import EXAMPLE_ORIGIN, InvalidKeys, Key, Kind
from auth.key_members import check_id, checked_key, hash_text, members_of, time_text
from auth.key_secret import PREFIXES
from auth.redact import redact

_LINE: Final = "keys line"
_FILE: Final = "keys file"
_LISTS: Final = ("games", "types", "allowed_origins", "addresses")
_FLAGS: Final = ("test", "disabled")
_LIMIT: Final = "limits."
_TRUTH: Final = {"true": True, "false": False}


def read_keys(*, text: str = "", file_text: str = "") -> list[Key]:
    """Read keys from the one-line form, the TOML form, or both (see docs/keys.md). Blank text has no keys.

    Raises:
        InvalidKeys: An entry is malformed, has a plain secret or the demo's hash, or an id or hash is repeated.
    """
    owners: dict[bytes, str] = {}
    keys: dict[str, Key] = {}
    for where, key_id, members in (*_line_entries(text), *_file_entries(file_text)):
        key = checked_key(where, key_id, members)
        if key.id in keys:
            raise InvalidKeys(f"{where}: key {key.id!r} is defined twice; ids must be unique")
        for secret in key.secrets:
            if secret.digest in owners:
                raise InvalidKeys(f"{where}: keys {owners[secret.digest]!r} and {key.id!r} have the same hash")
            owners[secret.digest] = key.id
        keys[key.id] = key
    return list(keys.values())


def read_file_entries(text: str) -> dict[str, Key | str]:
    """Read the TOML form, each entry by itself: by id, a key, or a sentence for an entry that is wrong.

    Raises:
        InvalidKeys: The text as a whole is no TOML, or has other tables.
    """
    found: dict[str, Key | str] = {}
    owners: dict[bytes, str] = {}
    for where, key_id, members in _file_entries(text):
        try:
            key = checked_key(where, key_id, members)
        except InvalidKeys as error:
            found[redact(key_id)] = str(error)
            continue
        twice = [owners[secret.digest] for secret in key.secrets if secret.digest in owners]
        found[key_id] = f"{where}: keys {twice[0]!r} and {key_id!r} have the same hash" if twice else key
        owners |= {secret.digest: key_id for secret in key.secrets if secret.digest not in owners}
    return found


def line_entry(key_id: str, kind: Kind, stored: str) -> str:
    """Return the entry of a new key in the one-line form. The entry of a public key has a placeholder origin.

    Raises:
        InvalidKeys: `key_id` is not allowed.
    """
    check_id("new key", key_id)
    members = f" kind=public allowed_origins={EXAMPLE_ORIGIN}" if kind == "public" else ""
    return f"{key_id}={stored}{members}"


def line_of(key: Key) -> str:
    """Return a key in the one-line form, with all its members."""
    secrets = []
    for secret in key.secrets:
        expiry = None if secret.expires_at is None else time_text(secret.expires_at)
        secrets.append("/".join(filter(None, (hash_text(secret), secret.prefix, expiry))))
    words = [f"{key.id}={','.join(secrets)}"]
    for name, value in members_of(key).items():
        if name in ("hash", "prefix", "secrets") or (name, value) == ("kind", "private"):
            continue
        if name == "limits":
            words += [f"{_LIMIT}{limit}={number}" for limit, number in value.items()]
        elif isinstance(value, list):
            words.append(f"{name}={','.join(value)}")
        else:
            words.append(f"{name}={str(value).lower() if name in _FLAGS else quote(str(value), safe=':')}")
    return " ".join(words)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[str, dict[str, Any]] = {}


def _line_entries(text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Parse ``id=HASH[/PREFIX][/EXPIRY] [kind=public] [games=a,b] [limits.links=5] …; id2=HASH``."""
    for number, entry in enumerate(text.split(";"), 1):
        members: dict[str, Any] = {}
        key_id = ""
        for word in entry.split():
            name, equals, value = word.partition("=")
            if not equals:
                # Not echoed: a word without '=' may be a secret.
                raise InvalidKeys(f"{_LINE}: entry {number} has a word without '='; an entry is id=sha256:HEX")
            if not key_id:
                key_id = name
                members["secrets"] = [_secret_of(part) for part in value.split(",")]
                continue
            into, member = (
                (members.setdefault("limits", {}), name.removeprefix(_LIMIT))
                if name.startswith(_LIMIT)
                else (members, name)
            )
            if member in into or (into is members and name == "hash"):
                raise InvalidKeys(f"{_LINE}: key {redact(key_id)!r} has {redact(name)} twice")
            into[member] = _value_of(name, value)
        if members:
            yield _LINE, key_id, members


def _secret_of(text: str) -> dict[str, str]:
    """Read ``sha256:HEX``, with its visible prefix and its time of expiry where they follow after slashes."""
    hash_, *others = text.split("/")
    found = {"hash": hash_}
    for other in others:
        found["prefix" if other.startswith(PREFIXES) else "expires_at"] = other
    return found


def _value_of(name: str, value: str) -> Any:
    """Turn the value of a member into what TOML would have; leave what is malformed for the check of members."""
    if name in _LISTS:
        return value.split(",")
    if name in _FLAGS:
        return _TRUTH.get(value, value)
    if name.startswith(_LIMIT):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return value
    return unquote(value) if name == "name" else value


def _file_entries(text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidKeys(f"{_FILE} is not TOML: {redact(str(error))}") from None
    except msgspec.ValidationError as error:
        raise InvalidKeys(f"{_FILE}: {redact(str(error))}; keys are tables [keys.ID]") from None
    for key_id, members in file.keys.items():
        yield _FILE, key_id, members
