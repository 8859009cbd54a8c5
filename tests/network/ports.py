"""Ports of this machine that a test may give to a server, and keep while no server listens on them.

A port that was only looked for, or whose server is being restarted, is free: the system may give it to any other test
or program in between. A held port is bound by a socket that does not listen. The system then gives it to nobody, while
a server that is told to listen on it may: servers set SO_REUSEADDR (https://www.man7.org/linux/man-pages/man7/socket.7.html).
"""

import socket
import weakref
from typing import Final

_HOST: Final = "127.0.0.1"


class HeldPort:
    """A port that is held until this object is gone. A connection to it is refused while no server listens on it."""

    def __init__(self, host: str = _HOST) -> None:
        holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        self.number: Final[int] = holder.getsockname()[1]
        weakref.finalize(self, holder.close)
