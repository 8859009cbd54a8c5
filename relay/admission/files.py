"""How many files this process may have open, of which every link is one.

Owns the soft limit, 1024 on most systems, which a process may raise by itself as far as the hard one.
"""

import resource
from typing import Final

import structlog

log = structlog.get_logger()

_BESIDE_LINKS: Final = 500
"""REST, connections that are no link yet or no more, NATS, listeners, and what gRPC and the loop have of their own."""


def allow_links(count: int) -> None:
    """Raise the limit so that `count` links fit, or as far as the system lets us; log it when that is too little."""
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
    """Raise the soft limit to `needed` or as near as can be, and never lower it; return what it now is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    # Not to the hard limit at once: where that is 2^30, programs that we start may walk through all of them.
    taken, refused = soft, (needed if hard == resource.RLIM_INFINITY else min(needed, hard)) + 1
    wanted = refused - 1
    while taken < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS and some sandboxes have a bound below the hard limit, and do not tell it
            refused = wanted
        else:
            taken = wanted
        wanted = (taken + refused) // 2
    return taken
