"""Keys for tests."""

from ipaddress import ip_network

from auth.key import Key, Limits, StoredSecret
from auth.key_secret import digest_of, generate, stored


def new_key(key_id: str, **members: object) -> Key:
    """Make a private key with a secret of its own."""
    return Key(key_id, "private", secrets=(stored(generate("private")[0]),), **members)  # type: ignore[arg-type]


def full_key(key_id: str = "full") -> Key:
    """Make a key that has every member."""
    new, old = (generate("public", test=True)[0] for _ in range(2))
    return Key(
        key_id,
        "public",
        frozenset({"crash", "dice"}),
        frozenset({"https://app.example", "app://."}),
        (stored(new), StoredSecret(digest_of(old), old[:12], 1_800_000_000.5)),
        types=frozenset({"slots"}),
        test=True,
        name="Partner A; söhne = 100 %",
        limits=Limits(10, 20, 30, 0.5, 40, 50, 60, 70),
        addresses=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
        created_at=1_790_000_000,
        expires_at=1_900_000_000,
        disabled=True,
    )
