"""Written in C: see `_send_loop.c`."""

from collections.abc import Sequence
from typing import Any, final

@final
class Outlet:
    """A connection that may be written to past its transport."""

    transport: Any
    """The owner of the socket; None when closed."""
    fd: int
    """The file number of the socket; -1 when closed."""

    def __new__(cls, sink: object, transport: object, fd: int, is_counted: bool = False) -> Outlet:
        """Allow sends on `fd`, the socket of `transport`, for a link whose own `transport` is `sink`.

        `is_counted`: the sink is an `Http2Stream`, the only one of its connection with an outlet.
        """

    def close(self) -> None:
        """Send nothing from now on."""

def send_to(links: list[Any], begin: int, end: int, data: bytes, cost: int = -1, /) -> Sequence[tuple[Any, int]]:
    """Send `data` to ``links[begin:end]`` with one system call each; never blocks.

    A link gets it when it has an `outlet` for its `transport`, that is neither closed nor closing, and nothing waits in
    the transport. `cost`: what the bytes take of the windows of streams; -1: they are not for streams.

    Returns the links that have not got all of it, each with how many bytes it has got.
    """
