"""What a request asks for: read from its path and query, checked against the catalogue and the grant. Pure.

Owns which games a request may name. Does not know credentials, nor where in the log a stream starts.
"""

from collections.abc import Iterable, Mapping

from relay.errors import BadRequest, NotAllowed
from relay.live.channels import Subscription
from rounds import Catalogue, Filter


def requested(
    catalogue: Catalogue, allowed: frozenset[str] | None, path: Mapping[str, str], query: Mapping[str, str]
) -> Subscription:
    """Read the subscription that a request asks for.

    Args:
        catalogue: The games there are.
        allowed: The games of the credential; None for all.
        path: The parameters of the path: ``game``, ``type``, or neither.
        query: The filter parameters, and ``games`` (comma-separated), which is read when the path has no parameter.

    Raises:
        UnknownGame, UnknownType: It is not in the catalogue.
        NotAllowed: The credential does not cover a named game, or covers none of the games asked for.
        BadRequest: ``games`` holds an empty name.
        InvalidFilter: See `Filter.parse`.
    """
    if "game" in path:
        games = named_games(catalogue, allowed, [path["game"]])
    elif "type" in path:
        games = _all_allowed(catalogue.of_type(path["type"]), allowed)
    elif "games" in query:
        games = named_games(catalogue, allowed, [name.strip() for name in query["games"].split(",")])
    else:
        games = _all_allowed(catalogue.slugs, allowed)
    return Subscription(games, Filter.parse(query))


def named_games(catalogue: Catalogue, allowed: frozenset[str] | None, names: Iterable[str]) -> frozenset[str]:
    """Check games that a client names: each must exist and be allowed."""
    games = frozenset(names)
    if not games or "" in games:
        raise BadRequest("games holds an empty name; separate games with commas, such as crash,dice")
    for name in sorted(games):
        catalogue.game(name)
        if allowed is not None and name not in allowed:
            raise NotAllowed(f"this credential does not cover game {name!r}; it covers: {', '.join(sorted(allowed))}")
    return games


def _all_allowed(games: frozenset[str], allowed: frozenset[str] | None) -> frozenset[str]:
    """Return those of `games` that the credential covers; it has to cover one at least."""
    covered = games if allowed is None else games & allowed
    if not covered:
        raise NotAllowed("this credential covers none of these games")
    return covered
