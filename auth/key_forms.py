"""The written forms of keys: one line for an environment variable, TOML for a file.

Owns the names of a key's members and what is allowed in them. Only hashes are stored, so a leaked configuration gives
no access. Pure.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from auth.key import ANY_ORIGIN, EXAMPLE_ORIGIN, InvalidKeys, Key, Kind, StoredSecret
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, PREFIXES, digest_of
from auth.redact import redact

_HASH: Final = re.compile(r"\Asha256:([0-9a-fA-F]{64})\Z")
_ID: Final = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SLUG: Final = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
# As browsers send it (RFC 6454 section 6.2): lower case, ASCII, no path, no slash at the end.
_ORIGIN: Final = re.compile(r"\A([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?\Z")
# Schemes of apps may have no host: file://, app://.
_ORIGIN_OF_APP: Final = re.compile(r"\A(?!(?:https?|wss?):)[a-z][a-z0-9+.-]*://\Z")
_DEFAULT_PORTS: Final = {("http", "80"), ("https", "443")}


def read_keys(*, text: str = "", file_text: str = "") -> list[Key]:
    """Read keys from the one-line form, the TOML form, or both (see docs/auth.md). Blank text has no keys.

    Raises:
        InvalidKeys: An entry is malformed, has a plain secret or the demo's hash, or an id or hash is repeated.
    """
    keys: dict[bytes, Key] = {}
    ids: set[str] = set()
    for where, key_id, members in (*_line_entries(text), *_file_entries(file_text)):
        key = _checked(where, key_id, members)
        digest = key.secrets[0].digest
        if key.id in ids:
            raise InvalidKeys(f"{where}: key {key.id!r} is defined twice; ids must be unique")
        if digest in keys:
            raise InvalidKeys(f"{where}: keys {keys[digest].id!r} and {key.id!r} have the same hash")
        ids.add(key.id)
        keys[digest] = key
    return list(keys.values())


def line_entry(key_id: str, kind: Kind, stored: str) -> str:
    """Return the entry of a new key in the one-line form. The entry of a public key has a placeholder origin.

    Raises:
        InvalidKeys: `key_id` is not allowed.
    """
    _check_id("new key", key_id)
    members = f" kind=public allowed_origins={EXAMPLE_ORIGIN}" if kind == "public" else ""
    return f"{key_id}={stored}{members}"


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    hash: str
    kind: Kind = "private"
    games: list[str] | None = None
    allowed_origins: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[str, dict[str, Any]] = {}


_LISTS: Final = ("games", "allowed_origins")
_LINE: Final = "keys line"
_FILE: Final = "keys file"


def _line_entries(text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Parse ``id=HASH [kind=public] [games=a,b] [allowed_origins=x,y]; id2=HASH``."""
    for number, entry in enumerate(text.split(";"), 1):
        members: dict[str, Any] = {}
        key_id = ""
        for word in entry.split():
            name, equals, value = word.partition("=")
            if not equals:
                # Not echoed: a word without '=' may be a secret.
                raise InvalidKeys(f"{_LINE}: entry {number} has a word without '='; an entry is id=sha256:HEX")
            if not key_id:
                key_id, name = name, "hash"
            if name in members:
                raise InvalidKeys(f"{_LINE}: key {redact(key_id)!r} has {redact(name)} twice")
            members[name] = value.split(",") if name in _LISTS else value
        if members:
            yield _LINE, key_id, members


def _file_entries(text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise InvalidKeys(f"{_FILE} is not TOML: {redact(str(error))}") from None
    except msgspec.ValidationError as error:
        raise InvalidKeys(f"{_FILE}: {redact(str(error))}; keys are tables [keys.ID]") from None
    for key_id, members in file.keys.items():
        yield _FILE, key_id, members


def _checked(where: str, key_id: str, members: dict[str, Any]) -> Key:
    """Check one entry of either form."""
    _check_id(where, key_id)
    at = f"{where}: key {key_id!r}"
    try:
        entry = msgspec.convert(members, _Entry)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # environment variables may not be UTF-8
        raise InvalidKeys(
            f"{at}: {redact(str(error))}; allowed are hash, kind (private or public), games and allowed_origins"
        ) from None
    digest = _checked_hash(at, entry.hash)
    for game in entry.games or ():
        if _SLUG.match(game) is None:
            raise InvalidKeys(f"{at}: games holds {_shown(game)}; a game is 1 to 64 of a-z, 0-9 and '-'")
    if entry.games == []:
        raise InvalidKeys(f"{at}: games is empty, so the key would allow nothing; omit games to allow all")
    for origin in entry.allowed_origins:
        _check_origin(at, origin)
    if entry.kind == "private" and entry.allowed_origins:
        raise InvalidKeys(f"{at}: allowed_origins is for public keys; this one is private")
    if entry.kind == "public" and not entry.allowed_origins:
        raise InvalidKeys(f"{at}: a public key needs allowed_origins, such as {EXAMPLE_ORIGIN}, or * for any")
    games = None if entry.games is None else frozenset(entry.games)
    return Key(key_id, entry.kind, games, frozenset(entry.allowed_origins), (StoredSecret(digest),))


def _check_id(where: str, key_id: str) -> None:
    if _ID.match(key_id) is None or redact(key_id) != key_id:
        raise InvalidKeys(
            f"{where}: key id {_shown(key_id)} is not allowed; use 1 to 64 letters, digits, '.', '_' and '-'"
        )


def _checked_hash(at: str, text: str) -> bytes:
    if text.startswith(PREFIXES):
        raise InvalidKeys(
            f"{at}: hash is a plain secret; store 'sha256:' and the output of `printf %s SECRET | sha256sum` instead"
        )
    match = _HASH.match(text)
    if match is None:
        # Not echoed: it may be an incomplete secret.
        raise InvalidKeys(f"{at}: hash is malformed; it must be 'sha256:' and 64 hex digits")
    digest = bytes.fromhex(match[1])
    if digest in (digest_of(DEMO_KEY), digest_of(DEMO_PUBLIC_KEY)):
        raise InvalidKeys(f"{at}: hash is that of the demo's key, which everybody knows; make your own key")
    return digest


def _check_origin(at: str, origin: str) -> None:
    if origin == ANY_ORIGIN or _ORIGIN_OF_APP.match(origin):
        return
    match = _ORIGIN.match(origin)
    if match is None:
        raise InvalidKeys(
            f"{at}: allowed_origins holds {_shown(origin)}; an origin is scheme://host[:port] in lower case, "
            "without a path or a slash at the end, file:// for pages from files, or * for any"
        )
    if match.groups() in _DEFAULT_PORTS:
        raise InvalidKeys(f"{at}: allowed_origins holds {origin!r}; browsers omit port {match[2]}, so omit it here too")


def _shown(text: str) -> str:
    """Quote an operator's value, masked and truncated, since it may be a misplaced secret."""
    masked = redact(text)
    return repr(masked if len(masked) <= 64 else f"{masked[:60]}...")
