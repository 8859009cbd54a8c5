"""API keys: read what an operator configures, and find the key of a presented secret.

Owns both stored forms (one line for an environment variable, TOML for a file) and the check of a presented secret. Only
hashes are stored, so a leaked configuration gives no access. Knows nothing of requests or tokens.
"""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import msgspec

from auth.redact import redact

Kind = Literal["private", "public"]

DEMO_KEY: Final = f"sk_live_{'0' * 64}"
"""The demo's private key. It is not secret: only `KeyStore.demo` accepts it, and `KeyStore.load` refuses its hash."""
DEMO_PUBLIC_KEY: Final = f"pk_live_{'0' * 64}"
"""The demo's public key, for browsers of any origin. Refused elsewhere like `DEMO_KEY`."""

_PREFIXES: Final[Mapping[Kind, str]] = {"private": "sk_live_", "public": "pk_live_"}
_SECRET: Final = re.compile(r"\A(?:sk|pk)_live_[0-9a-f]{64}\Z")
_HASH: Final = re.compile(r"\Asha256:([0-9a-fA-F]{64})\Z")
_ID: Final = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SLUG: Final = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
# As browsers send it (RFC 6454 section 6.2): lower case, ASCII, no path, no slash at the end.
_ORIGIN: Final = re.compile(r"\A([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?\Z")
# Schemes of apps may have no host: file://, app://.
_ORIGIN_OF_APP: Final = re.compile(r"\A(?!(?:https?|wss?):)[a-z][a-z0-9+.-]*://\Z")
_DEFAULT_PORTS: Final = {("http", "80"), ("https", "443")}

ANY_ORIGIN: Final = "*"
FILE_ORIGIN: Final = "file://"
"""Pages that were opened from a file. Browsers send this or ``null`` as their origin."""
EXAMPLE_ORIGIN: Final = "https://app.example.com"


class InvalidCredential(Exception):
    """A presented secret is not a known key. Clients get 401; the text never contains the secret."""


class InvalidKeys(Exception):
    """The operator's keys or token secrets are wrong. One sentence: the entry, the field, what is allowed."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a key allows. The process never stores its secret."""

    id: str
    kind: Kind
    games: frozenset[str] | None = None  # None: all games
    allowed_origins: frozenset[str] = frozenset()  # public keys only; "*" for any


class KeyStore:
    """All keys of this installation. Immutable; built by `load` or `demo`."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[bytes, Key]) -> None:
        """Take `keys` by the SHA-256 digest of each secret."""
        # Looked up by half of the digest, then compared in constant time.
        self._keys = {digest[:16]: (digest, key) for digest, key in keys.items()}

    @classmethod
    def load(cls, *, text: str = "", file_text: str = "") -> Self:
        """Read keys from the one-line form, the TOML form, or both (see docs/auth.md). Blank text has no keys.

        Raises:
            InvalidKeys: An entry is malformed, has a plain secret or the demo's hash, or an id or hash is repeated.
        """
        keys: dict[bytes, Key] = {}
        ids: set[str] = set()
        for where, key_id, members in (*_line_entries(text), *_file_entries(file_text)):
            digest, key = _checked(where, key_id, members)
            if key.id in ids:
                raise InvalidKeys(f"{where}: key {key.id!r} is defined twice; ids must be unique")
            if digest in keys:
                raise InvalidKeys(f"{where}: keys {keys[digest].id!r} and {key.id!r} have the same hash")
            ids.add(key.id)
            keys[digest] = key
        return cls(keys)

    @classmethod
    def demo(cls) -> Self:
        """Return the store of the demo: `DEMO_KEY` and `DEMO_PUBLIC_KEY`, all games, any origin. For loopback only."""
        return cls(
            {
                _digest(DEMO_KEY): Key("demo", "private"),
                _digest(DEMO_PUBLIC_KEY): Key("demo-public", "public", allowed_origins=frozenset({ANY_ORIGIN})),
            }
        )

    def authenticate(self, secret: str) -> Key:
        """Return the key that `secret` belongs to.

        One SHA-256 is enough: a secret has 256 random bits, so a slow hash would add nothing. Timing can reveal at most
        parts of the digest of a guess, which a caller can neither choose nor invert.

        Raises:
            InvalidCredential: The secret does not have the form of a key, or is unknown.
        """
        if _SECRET.match(secret) is None:
            raise InvalidCredential("the API key is malformed; a key is sk_live_ or pk_live_ followed by 64 hex digits")
        digest = _digest(secret)
        stored, key = self._keys.get(digest[:16], (bytes(32), None))
        # The prefix is hashed too, so a client cannot present a public key as a private one. But an operator can list a
        # public key as private by mistake, and a secret known to every browser must not get a server's rights.
        if not hmac.compare_digest(stored, digest) or key is None or not secret.startswith(_PREFIXES[key.kind]):
            raise InvalidCredential("the API key is unknown; check that it is complete and still in use")
        return key

    def keys(self) -> Iterator[Key]:
        """Return every key, in the configured order."""
        return (key for _, key in self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<KeyStore of {len(self)} keys>"


def generate(kind: Kind) -> tuple[str, str]:
    """Make a new key; return its secret, to show once, and its hash, to store."""
    secret = _PREFIXES[kind] + secrets.token_hex(32)
    return secret, hash_of(secret)


def hash_of(secret: str) -> str:
    """Return the stored form of a secret: ``sha256:`` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def line_entry(key_id: str, kind: Kind, stored: str) -> str:
    """Return the entry of a new key in the one-line form. The entry of a public key has a placeholder origin.

    Raises:
        InvalidKeys: `key_id` is not allowed.
    """
    _check_id("new key", key_id)
    members = f" kind=public allowed_origins={EXAMPLE_ORIGIN}" if kind == "public" else ""
    return f"{key_id}={stored}{members}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


# --- the stored forms ----------------------------------------------------------------------------------------------


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


def _checked(where: str, key_id: str, members: dict[str, Any]) -> tuple[bytes, Key]:
    """Check one entry of either form."""
    _check_id(where, key_id)
    at = f"{where}: key {key_id!r}"
    try:
        entry = msgspec.convert(members, _Entry)
    except msgspec.ValidationError as error:
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
    return digest, Key(key_id, entry.kind, games, frozenset(entry.allowed_origins))


def _check_id(where: str, key_id: str) -> None:
    if _ID.match(key_id) is None or redact(key_id) != key_id:
        raise InvalidKeys(
            f"{where}: key id {_shown(key_id)} is not allowed; use 1 to 64 letters, digits, '.', '_' and '-'"
        )


def _checked_hash(at: str, text: str) -> bytes:
    if text.startswith(tuple(_PREFIXES.values())):
        raise InvalidKeys(
            f"{at}: hash is a plain secret; store 'sha256:' and the output of `printf %s SECRET | sha256sum` instead"
        )
    match = _HASH.match(text)
    if match is None:
        # Not echoed: it may be an incomplete secret.
        raise InvalidKeys(f"{at}: hash is malformed; it must be 'sha256:' and 64 hex digits")
    digest = bytes.fromhex(match[1])
    if digest in (_digest(DEMO_KEY), _digest(DEMO_PUBLIC_KEY)):
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
