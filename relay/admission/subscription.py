"""What a request asks for: read from its path and query, checked against the catalogue and the grant. Pure."""

from collections.abc import Iterable, Mapping

from relay.errors import BadRequest, NotAllowed
from relay.live.hub import Wanted
from rounds import Catalogue, Filter


def wanted(
    catalogue: Catalogue, allowed: frozenset[str] | None, path: Mapping[str, str], query: Mapping[str, str]
) -> Wanted:
    """Read which games and filter a request asks for.

    Args:
        catalogue: The games there are.
        allowed: The games of the credential; None for all.
        path: The path's own parts: ``game``, ``type``, or neither.
        query: ``games`` (comma-separated), which counts when the path has no part, and the filter parameters.

    Raises:
        UnknownGame, UnknownType: Named, but not in the catalogue.
        NotAllowed: A named game is not the credential's, or none of the games asked for is.
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
    return Wanted(games, Filter.parse(query))


def named_games(catalogue: Catalogue, allowed: frozenset[str] | None, names: Iterable[str]) -> frozenset[str]:
    """Check games that a client has named one by one: each must exist and be allowed."""
    games = frozenset(names)
    if not games or "" in games:
        raise BadRequest("games holds an empty name; separate games with commas, such as crash,dice")
    for name in sorted(games):
        catalogue.game(name)
        if allowed is not None and name not in allowed:
            raise NotAllowed(f"this credential does not cover game {name!r}; it covers: {', '.join(sorted(allowed))}")
    return games


def _all_allowed(games: frozenset[str], allowed: frozenset[str] | None) -> frozenset[str]:
    """All of `games` that the credential covers; asking for all of a kind is not refused because of some."""
    covered = games if allowed is None else games & allowed
    if not covered:
        raise NotAllowed("this credential covers none of these games")
    return covered
