"""The limit of open files of this process: every link is one.

Owns the soft limit, 1024 on most systems, which a process may raise up to the hard limit. Does not know links.
"""

import resource
from typing import Final

import structlog

log = structlog.get_logger()

_BESIDE_LINKS: Final = 500
"""Files of REST, of connections before and after they are links, of NATS, listeners, gRPC and the event loop."""


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
