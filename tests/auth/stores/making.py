"""Keys for tests."""

from ipaddress import ip_network

import msgspec

from auth.key import Key, Limits, StoredSecret
from auth.key_members import members_of
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


def toml_of(key: Key) -> str:
    """Write a key as an operator would; times of TOML in place of text where there are whole seconds."""
    lines = [f'[keys."{key.id}"]']
    for name, value in members_of(key).items():
        if name.endswith("_at") and "." not in value:
            lines.append(f"{name} = {value}")
        elif name == "limits":
            lines += [f"limits.{limit} = {number!r}" for limit, number in value.items()]
        elif name == "secrets":
            rows = (", ".join(f"{member} = {text!r}" for member, text in secret.items()) for secret in value)
            lines.append(f"secrets = [{', '.join(f'{{ {row} }}' for row in rows)}]")
        else:
            lines.append(f"{name} = {msgspec.json.encode(value).decode()}")
    return "\n".join(lines)
