"""Accept connections with TLS. Each has a place in its share before its handshake, and a time for it.

Owns that clients which never finish a handshake hold no more than others do. Does not know what follows it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from relay.admission.strangers import Share
from relay.http.connections.listener import Listener
from relay.links.intake import Intake, Receiver
from relay.turns import Turns

log = structlog.get_logger()

_REPORT_S: Final = 1.0
_CLOSE_S: Final = 5.0
"""Time for the last bytes and the end of TLS, in which the peer need not answer."""


class TlsHandshake:
    """A connection whose handshake is under way, as a member of its share."""

    def __init__(self, accepted: socket.socket, share: Share) -> None:
        peer = accepted.getpeername()
        self.address = str(peer[0])
        self.idle_since = asyncio.get_running_loop().time()
        self._socket = accepted
        self._share: Share | None = share
        share.enter(self)

    def shed(self) -> None:
        """Cut the connection: its handshake fails."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """Leave the share, unless it was left."""
        share, self._share = self._share, None
        if share is not None:
            share.leave(self)


class TlsIntake(Intake):
    """An intake that gives its place to its receiver after the handshake."""

    __slots__ = ("_handshake",)

    def __init__(self, turns: Turns, receiver: Receiver, handshake: TlsHandshake) -> None:
        super().__init__(turns, receiver)
        self._handshake: TlsHandshake | None = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._handshake is not None:
            self._handshake.leave()
            self._handshake = None
        super().connection_made(transport)


class TlsListener(Listener):
    """Accepts connections of one listening socket, with TLS."""

    def __init__(
        self,
        listening: socket.socket,
        receiver: Callable[[], Receiver],
        *,
        context: Callable[[], ssl.SSLContext],
        handshake_s: float,
        strangers: Share,
        turns: Turns,
        refuses: bool = False,
    ) -> None:
        """Start to accept.

        Args:
            listening: A non-blocking listening socket; closed with this listener.
            receiver: Makes what gets the bytes of a connection; it enters `strangers` when it is connected.
            context: Returns what the next handshake uses.
            handshake_s: Time for a handshake.
            strangers: See `Listener`.
            turns: See `Listener`.
            refuses: See `Listener`.
        """
        self._receiver = receiver
        self._context = context
        self._handshake_s = handshake_s
        self._handshakes: set[asyncio.Task[None]] = set()
        self._reports_at = 0.0
        super().__init__(listening, self._no_factory, strangers=strangers, turns=turns, refuses=refuses)

    @property
    def _coming(self) -> int:
        return 0  # they have entered the share

    def _start(self, accepted: socket.socket) -> None:
        task = self._turns.begin(self._shake_hands(accepted))
        if task is not None:
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            handshake = TlsHandshake(accepted, self._strangers)
        except OSError:  # the client has left
            accepted.close()
            return
        try:
            await self._loop.connect_accepted_socket(
                lambda: TlsIntake(self._turns, self._receiver(), handshake),
                accepted,
                ssl=self._context(),
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=_CLOSE_S,
            )
        except OSError as error:  # the handshake failed, or took too long
            self._report(handshake.address, error)
        finally:
            handshake.leave()

    def _report(self, address: str, error: OSError) -> None:
        """Log why a handshake failed, once a second at most: any client can cause it, and asyncio sends no alert."""
        now = self._loop.time()
        if now >= self._reports_at:
            self._reports_at = now + _REPORT_S
            reason = (isinstance(error, ssl.SSLError) and error.reason) or str(error) or type(error).__name__
            log.info("tls_handshake_failed", address=address, error=str(reason).replace("_", " ").lower())

    @staticmethod
    def _no_factory() -> asyncio.BaseProtocol:
        raise AssertionError("TLS has receivers")
