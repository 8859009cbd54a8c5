"""The live subscription: rounds as the server republishes them when it has stored them.

Owns the subscription of one connection and the reading of its messages. Knows nothing of lost messages: repairing from
the log is up to the caller. Why republish: docs/adr/0002-republish-for-live.md
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from roundlog.client.connection import Connection
from roundlog.client.nats_internals import attach, read_at_once
from roundlog.entry import LogEntry
from roundlog.parser import RoundFrames
from rounds.subjects import LIVE_SUBJECTS

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

OnLive = Callable[[list[LogEntry]], None]
"""Called with rounds in the order in which they came. Runs inside the reading of the socket and must not raise."""

_PREFIX: Final = LIVE_SUBJECTS.removesuffix(".*")


class LiveSubscription:
    """Subscribes one connection to live rounds, and unsubscribes it, any number of times. Get it from `open`."""

    def __init__(self, connection: Connection, on_live: OnLive) -> None:
        self._connection = connection
        self._frames = RoundFrames(_PREFIX, lambda _token, entries: on_live(entries), by_token=False, republished=True)
        self._subscription: Subscription | None = None

    @classmethod
    async def open(cls, connection: Connection, on_live: OnLive) -> Self:
        """Prepare a connection on which nothing else subscribes; `on_live` is called once `subscribe` has been.

        Raises:
            LogUnavailable: The connection is lost, or the server does not answer.
        """
        live = cls(connection, on_live)
        await attach(connection.client, live._frames.read)
        live.connected()
        return live

    def connected(self) -> None:
        """Read rounds as soon as they come. To be called each time the connection has been made again."""
        read_at_once(self._connection.client)

    async def subscribe(self) -> None:
        """Ask the server for live rounds, unless they are subscribed to already.

        The answer to any later request shows that the server has the subscription, or `confirm` says why not.

        Raises:
            LogUnavailable: The connection is lost.
        """
        if self._subscription is None:
            self._subscription = await self._connection.subscribe(LIVE_SUBJECTS, self._frames.on_message)

    def confirm(self) -> None:
        """Check the subscription, once any later request has been answered.

        Raises:
            LogDenied: Our user may not subscribe to live rounds.
        """
        if (denied := self._connection.denied(LIVE_SUBJECTS)) is not None:
            raise denied

    async def unsubscribe(self) -> None:
        """End the subscription, if there is one.

        Raises:
            LogUnavailable: The connection is lost, and the subscription with it.
        """
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._connection.unsubscribe(subscription)
