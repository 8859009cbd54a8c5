"""What a credential that was accepted before allows now, after its key has changed or it was revoked. Pure.

Owns which changes of a key end its open links, and which only change what a link may still ask for. Does not know
links: `relay.links.revoker` asks for each link of a changed key. Why: docs/adr/0027-changed-keys-judge-their-links.md
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from enum import StrEnum

from auth.grants import Grant
from auth.key import Key
from auth.revocations import Revocations

Games = AbstractSet[str]


class Withdrawn(StrEnum):
    """Why a credential allows nothing any more: the word for logs."""

    REMOVED = "removed"  # the key is not stored any more
    DISABLED = "disabled"
    EXPIRED = "expired"
    SECRET = "secret"  # noqa: S105 - the secret that was presented was replaced, and its overlap is over
    KIND = "kind"  # the key is now public or private
    ORIGIN = "origin"  # no longer one of the key's `allowed_origins`
    ADDRESS = "address"  # no longer in one of the key's networks
    GAMES = "games"  # a game that is followed is no longer covered
    TOKEN = "token"  # noqa: S105 - the token, or its subject, was revoked


def standing(
    grant: Grant, key: Key | None, revocations: Revocations, *, address: str, follows: Games | None, now: float
) -> Grant | Withdrawn:
    """Return what a credential allows now, or why it allows nothing any more.

    A token never allows more than when it was made. Lower limits end nothing: they hold for what is asked from now on.
    An identity of the operator's own provider has no key here: only revocations end its links.

    Args:
        grant: What it allowed when it was judged last.
        key: Its key as it is now; None when there is none.
        revocations: Tokens and subjects that are refused.
        address: Of the client.
        follows: The games that its link follows; None: all that `grant` covers.
        now: Unix seconds.
    """
    if revocations.refuses(grant, now=now):
        return Withdrawn.TOKEN
    if grant.is_identity:
        return grant
    if key is None:
        return Withdrawn.REMOVED
    if (why := withdrawn(key, grant, now)) is not None:
        return why
    current = Grant.of(key)
    if not current.allows_origin(grant.origin):
        return Withdrawn.ORIGIN
    if not key.allows_address(address):
        return Withdrawn.ADDRESS
    games = current.games if grant.token_id is None else current.within(grant.games).games
    if games != grant.games and not _covers(games, follows, before=grant.games):
        return Withdrawn.GAMES
    if (games, current.allowed_origins, current.limits) == (grant.games, grant.allowed_origins, grant.limits):
        return grant
    return replace(grant, games=games, allowed_origins=current.allowed_origins, limits=current.limits)


def withdrawn(key: Key, grant: Grant, now: float) -> Withdrawn | None:
    """Return why neither the key nor its token may be used any more, from anywhere; None: they may be."""
    if not key.is_valid(now):
        return Withdrawn.DISABLED if key.disabled else Withdrawn.EXPIRED
    used = grant.secret_id
    if used is not None and not any(secret.id == used and secret.is_valid(now) for secret in key.secrets):
        return Withdrawn.SECRET
    return None if key.kind == grant.kind else Withdrawn.KIND


def _covers(games: frozenset[str] | None, follows: Games | None, *, before: frozenset[str] | None) -> bool:
    """Whether `games` has all of `follows` that `before` had."""
    if games is None:
        return True
    if before is None:
        return follows is not None and games >= follows
    return games >= (before if follows is None else follows & before)
