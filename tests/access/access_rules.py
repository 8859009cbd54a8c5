"""What docs/errors.md and docs/auth.md promise for a credential, a way to present it, a game and an origin. Pure.

Owns the expected answer of each cell of the table. Written from the documents and not from the code: it knows neither
keys nor tokens, only what they are said to allow.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

PAGE: Final = "https://app.example.com"
"""The origin that public keys of the table allow."""
ORIGINS: Final = (None, PAGE, "https://other.example.com", "null")

Slot = Literal["key", "token"]
"""Where a way presents a credential: where keys belong, or where stream tokens do."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What is presented, as its owner understands it."""

    name: str
    form: Literal["key", "token", "none", "two"] = "key"
    """two: two credentials that differ."""
    valid: bool = True
    public: bool = False
    games: frozenset[str] | None = None
    """What it covers; None: all games."""
    for_tests: bool = False
    from_here: bool = True
    """Whether clients of this address may use it."""


class Target(NamedTuple):
    """What is asked for."""

    what: Literal["game", "type", "all"]
    name: str = ""


class Installation(NamedTuple):
    """What the operator has chosen."""

    refuses_test_keys: bool = False
    refuses_private_keys_in_browsers: bool = False


class Refused(NamedTuple):
    """The status and the code of docs/errors.md."""

    status: int
    code: str


TYPES: Final = {"multiplier": frozenset({"crash", "dice"}), "slots": frozenset({"fortune-dragon"})}
"""Games with rounds, of the types that the table asks for."""
GAMES: Final = frozenset[str]().union(*TYPES.values())
TARGETS: Final = (
    Target("game", "crash"),
    Target("game", "dice"),
    Target("game", "dino"),  # there is no such game
    Target("type", "multiplier"),
    Target("type", "slots"),
    Target("type", "slits"),  # nor such a type
    Target("all"),
)


def covered(credential: Credential, target: Target) -> frozenset[str]:
    """Return the games with rounds that a credential gets of a target."""
    named = {"game": GAMES & {target.name}, "type": TYPES.get(target.name, frozenset()), "all": GAMES}[target.what]
    return named if credential.games is None else named & credential.games


def refusal(
    credential: Credential, slot: Slot, target: Target | None, origin: str | None, at: Installation, *, web: bool
) -> Refused | None:
    """Return how a request is refused; None when it is served.

    Args:
        credential: What is presented.
        slot: Where it is presented.
        target: What is asked for; None: nothing that a credential may not cover.
        origin: Of the page that asks.
        at: Where.
        web: Whether browsers can use the protocol.
    """
    return _of_credential(credential, slot, origin, at, web=web) or (
        None if target is None else _of_target(credential, target)
    )


def _of_credential(
    credential: Credential, slot: Slot, origin: str | None, at: Installation, *, web: bool
) -> Refused | None:
    if credential.form == "two":
        return Refused(400, "ambiguous_credential")
    if credential.form == "none":
        return Refused(401, "invalid_credential")
    if credential.form != slot or not credential.valid:
        return Refused(401, "invalid_credential" if slot == "key" else "invalid_token")
    if credential.public and origin != PAGE:
        return Refused(403, "not_allowed_origin")
    if not credential.from_here:
        return Refused(403, "not_allowed_address")
    if credential.for_tests and at.refuses_test_keys:
        return Refused(403, "not_allowed")
    in_browser = web and origin is not None
    if in_browser and slot == "key" and not credential.public and at.refuses_private_keys_in_browsers:
        return Refused(403, "private_key_in_browser")
    return None


def _of_target(credential: Credential, target: Target) -> Refused | None:
    if covered(credential, target):
        return None
    if credential.games is not None:  # the same for what exists and what does not
        return Refused(403, "not_allowed")
    return Refused(404, f"unknown_{target.what}")
