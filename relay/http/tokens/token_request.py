"""The body of ``POST /api/auth/token``: how a client narrows the token that it asks for. Pure.

Owns which bodies are read. Clients that know of no body may send any: only a JSON object with one of our members, or
a misspelt one, is a request. A misspelt member is refused, since the token would be wider than its client meant.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from auth.signing.compact import MalformedToken, read_object
from auth.tokens import LIFE_S
from relay.errors import BadRequest

_MEMBERS: Final = ("games", "types", "ttl_s", "subject")
_MISSPELT: Final = frozenset({"games", "game", "types", "ttl_s", "ttl", "ttls", "subject"})
"""In lower case and without blanks."""
_MOST_NAMES: Final = 1000
_LONGEST_SUBJECT: Final = 128


class TokenRequest(NamedTuple):
    """What a token should be. None: as wide as the credential."""

    games: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    life_s: int = LIFE_S
    subject: str | None = None


_WHOLE: Final = TokenRequest()


def read_token_request(media_type: str, body: bytes) -> TokenRequest:
    """Read a body; `media_type` is that of its ``Content-Type``, without parameters.

    Raises:
        BadRequest: It is said to be JSON and is not, or a member is unknown or malformed.
    """
    if not body.strip() or media_type.lower() != "application/json":
        return _WHOLE
    if body.strip() in (b"null", b'""', b"{}"):  # as libraries send it for nothing
        return _WHOLE
    try:
        found = read_object(body)
    except MalformedToken:
        raise BadRequest('the body is not a JSON object with each member once, such as {"games":["crash"]}') from None
    spelt = {name.strip().lower() for name in found}
    if not spelt & _MISSPELT:
        return _WHOLE
    if unknown := sorted(found.keys() - set(_MEMBERS)):
        raise BadRequest(f"the body has an unknown member {unknown[0][:40]!r}; allowed are: {', '.join(_MEMBERS)}")
    return TokenRequest(_names(found, "games"), _names(found, "types"), _life_s(found), _subject(found))


def _names(found: Mapping[str, Any], member: str) -> tuple[str, ...] | None:
    names = found.get(member)
    if names is None and member not in found:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise BadRequest(f'{member} is not a list of at least one name, such as ["{_EXAMPLES[member]}"]')
    if len(names) > _MOST_NAMES:
        raise BadRequest(f"{member} has {len(names)} names; at most {_MOST_NAMES} are allowed")
    return tuple(names)


_EXAMPLES: Final = {"games": "crash", "types": "multiplier"}


def _life_s(found: Mapping[str, Any]) -> int:
    life_s = found.get("ttl_s", LIFE_S)
    if isinstance(life_s, bool) or not isinstance(life_s, int) or not 1 <= life_s <= LIFE_S:
        raise BadRequest(f"ttl_s is {json.dumps(life_s)[:40]}; it must be a whole number from 1 to {LIFE_S}")
    return life_s


def _subject(found: Mapping[str, Any]) -> str | None:
    if "subject" not in found:
        return None
    subject = found["subject"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
        raise BadRequest(f"subject is not printable text of 1 to {_LONGEST_SUBJECT} characters")
    return subject
