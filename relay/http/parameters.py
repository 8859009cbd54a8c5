"""Query parameters of a URL: the names that a path takes, each with one value. And headers that are lists. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from multidict import MultiMapping

from relay.errors import BadRequest

LISTS: Final = ("games", "colors", "trends")
_IGNORED_PREFIXES: Final = ("_", "utm_")


def read_query(
    items: Iterable[tuple[str, str]], allowed: Iterable[str], *, path: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Read the parameters of a request. Unknown names are refused: to ignore a misspelt one would change the answer.

    Names that begin with ``_`` or ``utm_`` are ignored: tools add them against caches and for statistics.

    Args:
        items: Decoded names and values; a repeated name as repeated items.
        allowed: The names that the path takes.
        path: The variable parts of the path, when the same resource without them takes ``games``.

    Raises:
        BadRequest: A name is unknown, or see `single`.
    """
    known, found = tuple(allowed), list(items)
    if not found:
        return {}
    for name, _ in found:
        if name in known or name.startswith(_IGNORED_PREFIXES):
            continue
        if name == "games" and path:
            raise BadRequest(
                "games cannot be given here: the path names a game or type already; several are asked for at "
                "/ws, /sse and /api/history"
            )
        taken = f"allowed here: {', '.join(known)}" if known else "this path takes none"
        raise BadRequest(f"unknown query parameter {name[:40]!r}; {taken}")
    return single(found, known)


def single(items: Iterable[tuple[str, str]], names: Iterable[str]) -> dict[str, str]:
    """Return the value of each of `names` that is given; the pieces of a list given several times are joined.

    Raises:
        BadRequest: A name that is not a list is given twice.
    """
    wanted, given = frozenset(names), dict[str, str]()
    for name, value in items:
        if name not in wanted:
            continue
        if name not in given:
            given[name] = value
        elif name in LISTS:
            given[name] += f",{value}"
        else:
            # Without the values: they may be keys.
            raise BadRequest(f"{name} is given more than once; it takes one value")
    return given


def listed(headers: MultiMapping[str], name: str) -> str:
    """Return a header that is a list, empty when it is absent; several lines are one list (RFC 9110 section 5.3)."""
    return ", ".join(headers.getall(name, ()))
