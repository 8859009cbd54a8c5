"""How the bytes of a channel are sent to its links: in a loop of C past their transports, or through each transport.

Owns which connections the loop may write to. It does so only when nothing waits in the transport: bytes keep their
order, and what cannot be sent at once, like each error, is the transport's. Does not know rounds, nor what is slow.
Why: docs/adr/0044-one-loop-of-sends.md
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from relay.live.link import Link
    from relay.live.sending import _send_loop

Unsent = Sequence[tuple["Link", int]]
"""Links that have not got all of some bytes, each with how many it has got. Those that have got a part stand first:
nothing else may be written to their connections before the rest."""

_OF_SOCKETS: Final = frozenset(
    {
        ("asyncio.selector_events", "_SelectorSocketTransport"),
        ("uvloop.loop", "TCPTransport"),
        ("uvloop.loop", "UnixTransport"),
    }
)
"""Transports that write to a socket what they are given. They close it only after `is_closing` has become true, and
`get_write_buffer_size` counts all that they have not written. TLS has transports of its own."""

_BATCH_BYTES: Final = 64 << 10
"""Larger batches wait their turn among the frames of a connection."""


class Sends(Protocol):
    """A way to send. The bytes of all links are the same, and each link has its own place in them."""

    language: str
    """What is shown to operators."""

    def outlet(self, transport: object) -> "_send_loop.Outlet | None":
        """Return what `send` needs of a link with this transport; None when it writes to the transport."""

    def send(self, links: "list[Link]", begin: int, end: int, data: Any) -> Unsent:
        """Send to ``links[begin:end]``; return those that the caller has to write to. Never blocks.

        `data` is what their form has joined. The caller writes `rest_of` it to `transport` of the outlet of a link that
        has got a part, and all of it to the link's own.
        """


class TransportSends:
    """Leaves everything to the transports."""

    language = "python"

    def outlet(self, transport: object) -> None:
        return None

    def send(self, links: "list[Link]", begin: int, end: int, data: Any) -> Unsent:
        return [(link, 0) for link in links[begin:end]]


class CompiledSends:
    """Sends in a loop of C."""

    language = "c"

    def __init__(self) -> None:
        """Load the loop.

        Raises:
            ImportError: It is not installed, or not for this system.
        """
        from relay.live.sending import _send_loop

        self._new_outlet = _send_loop.Outlet
        self._send_to = _send_loop.send_to

    def outlet(self, transport: Any) -> "_send_loop.Outlet | None":
        of_stream = getattr(transport, "own_transport", None)
        below = transport if of_stream is None else of_stream()
        kind = type(below)
        if (kind.__module__, kind.__name__) not in _OF_SOCKETS or below.is_closing():
            return None
        number = below.get_extra_info("socket").fileno()
        return self._new_outlet(transport, below, number, of_stream is not None)

    def send(self, links: "list[Link]", begin: int, end: int, data: Any) -> Unsent:
        if type(data) is bytes:
            return self._send_to(links, begin, end, data)
        if hasattr(data, "first") and 0 < data.size <= _BATCH_BYTES:
            return self._send_to(links, begin, end, data.first, data.size)
        return [(link, 0) for link in links[begin:end]]


def rest_of(data: Any, sent: int) -> memoryview:
    """Return what a link still needs that has got `sent` bytes of `data`."""
    return memoryview(data if type(data) is bytes else data.first)[sent:]


def choose_sends(*, compiled: bool = True) -> Sends:
    """Return the loop of C where it is installed and `compiled` allows it, otherwise what works everywhere."""
    if compiled:
        try:
            return CompiledSends()
        except ImportError:
            pass
    return TransportSends()
