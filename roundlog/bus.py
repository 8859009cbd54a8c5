"""Short messages among the relays of one log, over core NATS: to all of them, at most once, stored nowhere.

Owns the connection, and whether messages reach others: what a relay sends comes back to it as well. Without that, as
when the server does not permit the subject, it sends rarely. Does not know what messages hold.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import structlog

from roundlog.backoff import Backoff
from roundlog.client.connection import Connection, connect
from roundlog.log_errors import LogError
from roundlog.log_settings import LogSettings

if TYPE_CHECKING:
    from nats.aio.msg import Msg

log = structlog.get_logger()

_RETRY_S: Final = (0.5, 10.0)
_SILENT_S: Final = 5.0
"""Messages that have not come back after this time do not reach others either."""
_PROBE_S: Final = 60.0
"""Time between two attempts while messages do not come back: the server logs each one that it does not permit."""


class RelayBus:
    """Sends to all relays that have the same subject, and receives from them."""

    def __init__(self, settings: LogSettings, subject: str, on_message: Callable[[bytes], None]) -> None:
        """Connect to nothing yet.

        Args:
            settings: The server.
            subject: What relays publish and subscribe to.
            on_message: Called with each message, own ones too; it must not raise, nor trust what it gets.
        """
        self._settings = settings
        self._subject = subject
        self._on_message = on_message
        self._connection: Connection | None = None
        self._sent_at: float | None = None  # the oldest message that has not come back
        self._probe_at = 0.0

    @property
    def reaches_others(self) -> bool:
        """Whether the relay is connected, and its messages come back."""
        now = asyncio.get_running_loop().time()
        is_heard = self._sent_at is None or now - self._sent_at < _SILENT_S
        return self._connection is not None and self._connection.is_connected and is_heard

    async def send(self, data: bytes) -> bool:
        """Send a message; return whether it was sent. It may be lost."""
        connection, now = self._connection, asyncio.get_running_loop().time()
        if connection is None or not connection.is_connected:
            return False
        if not self.reaches_others:
            if now < self._probe_at:
                return False
            self._probe_at = now + _PROBE_S
            self._sent_at = now
        if self._sent_at is None:
            self._sent_at = now
        try:
            await connection.publish(self._subject, data)
        except LogError:
            return False
        return True

    async def run(self, on_connected: Callable[[], Awaitable[None]]) -> None:
        """Stay connected until cancelled; `on_connected` is awaited each time the relay has been connected."""
        backoff = Backoff(*_RETRY_S)

        async def reconnected() -> None:
            self._sent_at = None
            await on_connected()

        while True:
            try:
                async with connect(self._settings, name="relay-bus", on_reconnected=reconnected) as connection:
                    await connection.subscribe(self._subject, self._received)
                    self._connection = connection
                    await reconnected()
                    await asyncio.Event().wait()  # nats-py reconnects by itself
            except LogError as error:
                wait_s = backoff.next_s()
                log.debug("relay_bus_unavailable", error=str(error), retry_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)
            finally:
                self._connection = None

    async def _received(self, message: "Msg") -> None:
        self._on_message(message.data)

    def came_back(self) -> None:
        """Note that a message of this relay has come back."""
        self._sent_at = None
