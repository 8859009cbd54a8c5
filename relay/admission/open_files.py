"""The limit of open files of this process: every link is one.

Owns the soft limit, 1024 on most systems, which a process may raise up to the hard limit, and what the files are for.
Does not know which links are open.
"""

import resource
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

import structlog

from relay.admission.capacity import PROTOCOLS, LinkProtocol

log = structlog.get_logger()

_BESIDE_LINKS: Final = 500
"""Files of REST, of connections before and after they are links, of NATS, listeners, gRPC and the event loop."""
_OWN: Final = 48
"""Files of the process itself: 24 while it runs, the others for metrics, reconnects and replaced certificates."""
_MOST_STRANGERS: Final = 1024
"""More connections without a credential are never needed: a client sends its credential as soon as it is connected."""
_GRPC_COST: Final = 2
"""A gRPC link takes twice its share where files are few: see `FileShares.of`."""


class FileShares(NamedTuple):
    """What the open files of a relay are for. All shares together are within the limit."""

    limit: int
    strangers: int  # HTTP connections without an accepted credential
    guests: int  # HTTP connections with one that are no links: requests, and idle between requests
    grpc_connections: int  # to the gRPC port, with or without calls
    links: int  # links, at `costs` each
    costs: Mapping[LinkProtocol, int]

    @classmethod
    def of(cls, limit: int, *, links: int) -> Self:
        """Divide `limit` files; `links` is the number of links that memory and settings allow.

        A gRPC connection may have many links, or none. So the gRPC port has a number of connections of its own that it
        cannot exceed. Where files are few, that is a third of those for links, and a gRPC link takes two of them: its
        connection, and a file that no other link may have.
        """
        room = max(8, limit - _OWN)
        strangers = min(_MOST_STRANGERS, max(4, room // 8))
        guests = min(max(_MOST_STRANGERS, links // 4), max(4, room // 8))
        rest = max(3, room - strangers - guests)
        if rest >= 2 * links + _MOST_STRANGERS:
            enough = (rest - _MOST_STRANGERS) // 2
            return cls(limit, strangers, guests, links + _MOST_STRANGERS, enough, dict.fromkeys(PROTOCOLS, 1))
        costs = {protocol: _GRPC_COST if protocol == "grpc" else 1 for protocol in PROTOCOLS}
        links = rest * 2 // 3
        return cls(limit, strangers, guests, rest - links, links, costs)


def shared_files(links: int) -> FileShares:
    """Raise the limit as far as `links` links of any protocol need, and return what the files are for."""
    allow_links(links)
    return FileShares.of(_raised(2 * links + max(_MOST_STRANGERS, links // 4) + 3 * _MOST_STRANGERS), links=links)


def allow_links(count: int) -> None:
    """Raise the limit for `count` links, or as far as the system allows; log it when that is too low."""
    needed = count + _BESIDE_LINKS
    limit = _raised(needed)
    if limit < needed:
        log.info(
            "open_files_limit",
            limit=limit,
            needed=needed,
            advice=f"raise the hard limit of open files (ulimit -Hn) to {needed}, "
            f"or set RELAY_LINKS_MAX_LINKS to {_BESIDE_LINKS} less than it is",
        )


def _raised(needed: int) -> int:
    """Raise the soft limit to `needed` or as close to it as possible, and never lower it; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    # Not to the hard limit: where that is 2^30, child processes may close every possible file one by one.
    taken, refused = soft, (needed if hard == resource.RLIM_INFINITY else min(needed, hard)) + 1
    wanted = refused - 1
    while taken < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS and some sandboxes have an unknown bound below the hard limit
            refused = wanted
        else:
            taken = wanted
        wanted = (taken + refused) // 2
    return taken
