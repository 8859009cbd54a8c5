"""The members of a written key: which there are, and what is allowed in each. Pure.

Owns how a mapping of members, as TOML and JSON have it, becomes a `Key` and back. Does not know the texts around it:
one line and TOML are in `auth.key_forms`, JSON is in `auth.stores.stored_json`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from ipaddress import IPv6Network, ip_network
from typing import Any, Final

import msgspec

from auth.key import ANY_ORIGIN, EXAMPLE_ORIGIN, InvalidKeys, Key, Kind, Limits, Network, StoredSecret
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, PREFIXES, digest_of, prefix_of
from auth.redact import redact

ALLOWED: Final = (
    "hash, kind (private or public), prefix, secrets, test, name, games, types, allowed_origins, limits, addresses, "
    "created_at, expires_at and disabled"
)
"""The members of a key, for errors."""
LIMITS: Final = tuple(field.name for field in fields(Limits))

_HASH: Final = re.compile(r"\Asha256:([0-9a-fA-F]{64})\Z")
_PREFIX: Final = re.compile(r"\A[sp]k_(?:live|test)_[0-9a-f]{0,8}\Z")
"""At most 32 of 256 bits of a secret may be stored in the clear."""
_ID: Final = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SLUG: Final = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
# As browsers send it (RFC 6454 section 6.2): lower case, ASCII, no path, no slash at the end.
_ORIGIN: Final = re.compile(r"\A([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?\Z")
# Schemes of apps may have no host: file://, app://.
_ORIGIN_OF_APP: Final = re.compile(r"\A(?!(?:https?|wss?):)[a-z][a-z0-9+.-]*://\Z")
_DEFAULT_PORTS: Final = {("http", "80"), ("https", "443")}
_NAME_CHARACTERS: Final = 100
_MOST_SECRETS: Final = 10
"""Each is looked up; a rotation needs two."""
_MOST_IN_LIST: Final = 1000
_MOST: Final = 10**9
_LATEST: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""Addresses of IPv4 as IPv6 writes them: RFC 4291 section 2.5.5.2."""


class _Secret(msgspec.Struct, forbid_unknown_fields=True):
    hash: str
    prefix: str = ""
    expires_at: Any = None


class _Members(msgspec.Struct, forbid_unknown_fields=True):
    hash: str | None = None
    prefix: str = ""
    secrets: list[_Secret] = []
    kind: Kind = "private"
    test: bool | None = None
    name: str = ""
    games: list[str] | None = None
    types: list[str] | None = None
    allowed_origins: list[str] = []
    limits: dict[str, Any] = {}
    addresses: list[str] | None = None
    created_at: Any = None
    expires_at: Any = None
    disabled: bool = False


def checked_key(where: str, key_id: str, members: Mapping[str, Any]) -> Key:
    """Make a key of its members; `where` names the text that has it, for errors.

    Raises:
        InvalidKeys: A member is unknown, malformed, or does not fit the others. One sentence.
    """
    check_id(where, key_id)
    at = f"{where}: key {key_id!r}"
    try:
        entry = msgspec.convert(members, _Members)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # environment variables may not be UTF-8
        raise InvalidKeys(f"{at}: {redact(str(error))}; allowed are {ALLOWED}") from None
    secrets = _checked_secrets(at, entry)
    test = _checked_test(at, entry, secrets)
    _check_name(at, entry.name)
    _check_slugs(at, "games", "a game", entry.games)
    _check_slugs(at, "types", "a type", entry.types)
    _check_origins(at, entry)
    return Key(
        key_id,
        entry.kind,
        None if entry.games is None else frozenset(entry.games),
        frozenset(entry.allowed_origins),
        secrets,
        types=frozenset(entry.types or ()),
        test=test,
        name=entry.name,
        limits=_checked_limits(at, entry.limits),
        addresses=_checked_addresses(at, entry.addresses),
        created_at=_checked_time(at, "created_at", entry.created_at),
        expires_at=_checked_time(at, "expires_at", entry.expires_at),
        disabled=entry.disabled,
    )


def members_of(key: Key) -> dict[str, Any]:
    """Return the members of a key as `checked_key` reads them: lists sorted, defaults omitted, times as text."""
    found: dict[str, Any] = {}
    secrets = [_secret_members(secret) for secret in key.secrets]
    if len(secrets) == 1 and "expires_at" not in secrets[0]:
        found |= secrets[0]
    else:
        found["secrets"] = secrets
    found["kind"] = key.kind
    for name, value in (
        ("test", key.test),
        ("name", key.name),
        ("types", sorted(key.types)),
        ("allowed_origins", sorted(key.allowed_origins)),
        ("limits", {name: limit for name in LIMITS if (limit := getattr(key.limits, name)) is not None}),
        ("addresses", [str(network) for network in key.addresses]),
        ("disabled", key.disabled),
    ):
        if value:
            found[name] = value
    if key.games is not None:
        found["games"] = sorted(key.games)
    for name, moment in (("created_at", key.created_at), ("expires_at", key.expires_at)):
        if moment is not None:
            found[name] = time_text(moment)
    return found


def check_id(where: str, key_id: str) -> None:
    """Raise `InvalidKeys` for an id that is not allowed."""
    if _ID.match(key_id) is None or redact(key_id) != key_id:
        raise InvalidKeys(
            f"{where}: key id {shown(key_id)} is not allowed; use 1 to 64 letters, digits, '.', '_' and '-'"
        )


def hash_text(secret: StoredSecret) -> str:
    """Return the written hash of a secret."""
    return f"sha256:{secret.digest.hex()}"


def time_text(moment: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, with a fraction only where there is one."""
    when = datetime.fromtimestamp(moment, UTC)
    return when.isoformat(timespec="microseconds" if when.microsecond else "seconds").replace("+00:00", "Z")


def shown(text: str) -> str:
    """Quote an operator's value, masked and truncated, since it may be a misplaced secret."""
    masked = redact(text)
    return repr(masked if len(masked) <= 64 else f"{masked[:60]}...")


def _secret_members(secret: StoredSecret) -> dict[str, Any]:
    found: dict[str, Any] = {"hash": hash_text(secret)}
    if secret.prefix:
        found["prefix"] = secret.prefix
    if secret.expires_at is not None:
        found["expires_at"] = time_text(secret.expires_at)
    return found


def _checked_secrets(at: str, entry: _Members) -> tuple[StoredSecret, ...]:
    if entry.hash is not None and entry.secrets:
        raise InvalidKeys(f"{at}: hash and secrets are both given; list all secrets of the key in secrets")
    if entry.prefix and entry.hash is None:
        raise InvalidKeys(f"{at}: prefix is given without hash; in secrets, each secret has its own prefix")
    found = entry.secrets if entry.hash is None else [_Secret(entry.hash, entry.prefix)]
    if not found:
        raise InvalidKeys(f"{at}: hash is missing; it is 'sha256:' and 64 hex digits")
    if len(found) > _MOST_SECRETS:
        raise InvalidKeys(f"{at}: secrets has {len(found)} entries; a key has at most {_MOST_SECRETS}")
    secrets = tuple(
        StoredSecret(
            _checked_hash(at, secret.hash),
            _checked_prefix(at, secret.prefix),
            _checked_time(at, "expires_at of a secret", secret.expires_at),
        )
        for secret in found
    )
    if len({secret.digest for secret in secrets}) < len(secrets):
        raise InvalidKeys(f"{at}: secrets has the same hash twice")
    return secrets


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


def _checked_prefix(at: str, text: str) -> str:
    if text and _PREFIX.match(text) is None:
        # Not echoed: it may be a whole secret.
        raise InvalidKeys(f"{at}: prefix is malformed; it is {', '.join(PREFIXES)} and up to 8 hex digits")
    return text


def _checked_test(at: str, entry: _Members, secrets: Iterable[StoredSecret]) -> bool:
    """Return whether it is a test key: as `test` says, else as the prefixes do; both must agree."""
    starts = [secret.prefix[: len(prefix_of("private"))] for secret in secrets if secret.prefix]
    test = entry.test if entry.test is not None else any("_test_" in start for start in starts)
    wanted = prefix_of(entry.kind, test=test)
    if wrong := next((start for start in starts if start != wanted), None):
        raise InvalidKeys(f"{at}: prefix begins with {wrong}, but secrets of such a key begin with {wanted}")
    return test


def _check_name(at: str, name: str) -> None:
    if len(name) > _NAME_CHARACTERS or not name.isprintable() or redact(name) != name:
        raise InvalidKeys(
            f"{at}: name {shown(name)} is not allowed; use at most {_NAME_CHARACTERS} printable characters, and no key"
        )


def _check_slugs(at: str, member: str, what: str, slugs: list[str] | None) -> None:
    for slug in slugs or ():
        if _SLUG.match(slug) is None:
            raise InvalidKeys(f"{at}: {member} holds {shown(slug)}; {what} is 1 to 64 of a-z, 0-9 and '-'")
    if slugs == []:
        raise InvalidKeys(f"{at}: {member} is empty, so the key would allow nothing; omit {member} to allow all")
    _check_length(at, member, slugs)


def _check_length(at: str, member: str, values: list[str] | None) -> None:
    if values is not None and len(values) > _MOST_IN_LIST:
        raise InvalidKeys(f"{at}: {member} has {len(values)} entries; at most {_MOST_IN_LIST} are allowed")


def _check_origins(at: str, entry: _Members) -> None:
    _check_length(at, "allowed_origins", entry.allowed_origins)
    for origin in entry.allowed_origins:
        _check_origin(at, origin)
    if entry.kind == "private" and entry.allowed_origins:
        raise InvalidKeys(f"{at}: allowed_origins is for public keys; this one is private")
    if entry.kind == "public" and not entry.allowed_origins:
        raise InvalidKeys(f"{at}: a public key needs allowed_origins, such as {EXAMPLE_ORIGIN}, or * for any")


def _check_origin(at: str, origin: str) -> None:
    if origin == ANY_ORIGIN or _ORIGIN_OF_APP.match(origin):
        return
    match = _ORIGIN.match(origin)
    if match is None:
        raise InvalidKeys(
            f"{at}: allowed_origins holds {shown(origin)}; an origin is scheme://host[:port] in lower case, "
            "without a path or a slash at the end, file:// for pages from files, or * for any"
        )
    if match.groups() in _DEFAULT_PORTS:
        raise InvalidKeys(f"{at}: allowed_origins holds {origin!r}; browsers omit port {match[2]}, so omit it here too")


def _checked_limits(at: str, limits: Mapping[str, Any]) -> Limits:
    for name, value in limits.items():
        if name not in LIMITS:
            raise InvalidKeys(f"{at}: limits has no member {shown(name)}; allowed are {', '.join(LIMITS)}")
        is_rate = name.endswith("_per_s")
        is_number = isinstance(value, int | float if is_rate else int) and not isinstance(value, bool)
        if not is_number or not (value > 0 if is_rate else value >= 1) or value > _MOST or not math.isfinite(value):
            allowed = "a number above 0" if is_rate else "a whole number of at least 1"
            raise InvalidKeys(f"{at}: limits.{name}={shown(str(value))} is not allowed; it is {allowed}, up to {_MOST}")
    return Limits(**limits)


def _checked_addresses(at: str, addresses: list[str] | None) -> tuple[Network, ...]:
    if addresses == []:
        raise InvalidKeys(f"{at}: addresses is empty, so the key would allow nothing; omit addresses to allow all")
    _check_length(at, "addresses", addresses)
    return tuple(_checked_network(at, text) for text in dict.fromkeys(addresses or ()))


def _checked_network(at: str, text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        try:
            whole = f"; write {ip_network(text, strict=False)} for the whole network"
        except ValueError:
            whole = ""
        raise InvalidKeys(
            f"{at}: addresses holds {shown(text)}; it is an address or a network of IPv4 or IPv6, "
            f"such as 192.0.2.0/24 or 2001:db8::/32{whole}"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ip_network(f"{mapped}/{network.prefixlen - _MAPPED.prefixlen}")
    return network


def _checked_time(at: str, member: str, value: object) -> float | None:
    """Read a time: RFC 3339 as text, or a date and time of TOML."""
    if value is None:
        return None
    if isinstance(value, str):
        with suppress(msgspec.ValidationError):
            value = msgspec.convert(value, datetime)
    if not isinstance(value, datetime) or value.tzinfo is None or not 0 <= value.timestamp() <= _LATEST:
        raise InvalidKeys(
            f"{at}: {member} is not a time with an offset from UTC (RFC 3339), such as 2027-01-31T00:00:00Z"
        )
    return value.timestamp()
