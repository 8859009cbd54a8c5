"""What a request asks for: read from its path and query, checked against the catalogue and the grant. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from relay.errors import BadRequest, NotAllowed
from relay.hub import Wanted
from rounds import Catalogue, Filter

_NOT_OURS: Final = ("_", "utm_")


def wanted(
    catalogue: Catalogue, allowed: frozenset[str] | None, path: Mapping[str, str], query: Mapping[str, str]
) -> Wanted:
    """Read which games and filter a request asks for.

    Args:
        catalogue: The games there are.
        allowed: The games of the credential; None for all.
        path: The path's own parts: ``game``, ``type``, or neither.
        query: ``games`` (comma-separated) and the filter parameters.

    Raises:
        UnknownGame, UnknownType: Named, but not in the catalogue.
        NotAllowed: A named game is not the credential's, or none of the games asked for is.
        BadRequest: ``games`` is empty, or given together with a game or type in the path.
        InvalidFilter: See `Filter.parse`.
    """
    if "games" in query and path:
        raise BadRequest(
            "games cannot be given here: the path already names what to stream; use /ws?games= or /sse?games="
        )
    if "game" in path:
        games = named_games(catalogue, allowed, [path["game"]])
    elif "type" in path:
        games = _all_allowed(catalogue.of_type(path["type"]), allowed)
    elif "games" in query:
        games = named_games(catalogue, allowed, [name.strip() for name in query["games"].split(",")])
    else:
        games = _all_allowed(catalogue.slugs, allowed)
    return Wanted(games, Filter.parse(query))


def refuse_unknown(query: Iterable[str], allowed: Iterable[str]) -> None:
    """Check the names of query parameters: a misspelt one that is passed over would answer another question.

    Names that begin with ``_`` or ``utm_`` are let through: tools add them against caches and for statistics.

    Raises:
        BadRequest: A name is not among those allowed.
    """
    known = list(allowed)
    for name in query:
        if name not in known and not name.startswith(_NOT_OURS):
            raise BadRequest(f"unknown query parameter {name[:40]!r}; allowed here: {', '.join(known)}")


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
