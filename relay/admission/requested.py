"""What a request asks for: read from its path and query, checked against the catalogue and the grant. Pure.

Owns which games a request may name. Does not know credentials, nor where in the log a stream starts.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from relay.errors import BadRequest, NotAllowed
from relay.live.channels import Subscription
from rounds import Catalogue, Filter
from rounds.filter import PARAMETERS as FILTER_PARAMETERS

PARAMETERS: Final = ("corrections",)
"""The parameters of a subscription beside its games and its filter."""
_EVERY_ROUND: Final = Filter()
_FLAGS: Final[Mapping[str, bool]] = {"0": False, "false": False, "1": True, "true": True}


def requested(
    catalogue: Catalogue, allowed: frozenset[str] | None, path: Mapping[str, str], query: Mapping[str, str]
) -> Subscription:
    """Read the subscription that a request asks for.

    Args:
        catalogue: The games there are.
        allowed: The games of the credential; None for all.
        path: The parameters of the path: ``game``, ``type``, or neither.
        query: The filter parameters, ``corrections``, and ``games`` (comma-separated), which is read when the path has
            no parameter.

    A credential of some games gets the same answer for a game that it does not cover and for one that does not exist,
    and for types likewise: what else there is would be revealed by the difference.

    Raises:
        UnknownGame, UnknownType: It is not in the catalogue, and the credential covers all games.
        NotAllowed: The credential does not cover a named game, or covers none of the games asked for.
        BadRequest: ``games`` holds an empty name, or see `asks_corrections`.
        InvalidFilter: See `Filter.parse`.
    """
    if "game" in path:
        games = named_games(catalogue, allowed, [path["game"]])
    elif "type" in path:
        games = games_of_type(catalogue, allowed, path["type"])
    elif "games" in query:
        games = named_games(catalogue, allowed, [name.strip() for name in query["games"].split(",")])
    else:
        games = catalogue.slugs if allowed is None else catalogue.slugs & allowed
        if not games:
            raise NotAllowed("this credential covers no game")
    filter_ = _EVERY_ROUND if query.keys().isdisjoint(FILTER_PARAMETERS) else Filter.parse(query)
    wanted = Subscription(games, filter_)
    return wanted.with_corrections() if asks_corrections(query) else wanted


def asks_corrections(query: Mapping[str, str]) -> bool:
    """Read ``corrections``: whether a client also wants corrections of rounds; raise `BadRequest` for an odd value."""
    text = query.get("corrections", "0")
    if text not in _FLAGS:
        raise BadRequest(f"corrections {text[:40]!r} is none of 1 and true, 0 and false")
    return _FLAGS[text]


def named_games(catalogue: Catalogue, allowed: frozenset[str] | None, names: Iterable[str]) -> frozenset[str]:
    """Check games that a client names: each must exist and be allowed; see `requested`."""
    games = frozenset(names)
    if not games or "" in games:
        raise BadRequest("games holds an empty name; separate games with commas, such as crash,dice")
    covered = catalogue.slugs if allowed is None else catalogue.slugs & allowed
    if not games <= covered:
        name = min(games - covered)
        if allowed is None:
            catalogue.game(name)
        raise NotAllowed(f"this credential does not cover game {name[:64]!r}; it covers: {_listed(covered)}")
    return games


def games_of_type(catalogue: Catalogue, allowed: frozenset[str] | None, name: str) -> frozenset[str]:
    """Return the games of a type that the credential covers; it has to cover one at least."""
    if allowed is None:
        return catalogue.of_type(name)
    covered = frozenset(slug for slug in allowed & catalogue.slugs if catalogue.games[slug].type == name)
    if not covered:
        raise NotAllowed(f"this credential covers no game of type {name[:64]!r}")
    return covered


def _listed(games: frozenset[str]) -> str:
    return ", ".join(sorted(games)) or "none"
