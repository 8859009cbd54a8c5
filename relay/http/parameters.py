"""Query parameters of a URL: which names a path takes, and one value of each. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from relay.errors import BadRequest

LISTS: Final = ("games", "colors", "trends")
_NOT_OURS: Final = ("_", "utm_")


def read_query(
    items: Iterable[tuple[str, str]], allowed: Iterable[str], *, path: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Read the parameters of a request: a misspelt one that is passed over would answer another question.

    Names that begin with ``_`` or ``utm_`` are passed over: tools add them against caches and for statistics.

    Args:
        items: Decoded names and values; a repeated name as repeated items.
        allowed: The names that are taken here.
        path: The path's own parts, where some of its paths take ``games`` instead.

    Raises:
        BadRequest: A name is not among those allowed, or see `single`.
    """
    known, found = tuple(allowed), list(items)
    for name, _ in found:
        if name in known or name.startswith(_NOT_OURS):
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
    """Return the value of each of `names` that is given; lists that are given in several pieces are put together.

    Raises:
        BadRequest: One that is no list is given twice: which one is meant is not ours to guess.
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
            # Not the values: one that is given twice may be a key.
            raise BadRequest(f"{name} is given more than once; it takes one value")
    return given
