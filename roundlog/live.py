"""The live subscription: rounds as the server republishes them when it has stored them.

Owns the subscriptions of a connection, the reading of its messages, and that they may wait. Knows nothing of lost
messages: repairing from the log is up to the caller. Why republish: docs/adr/0002-republish-for-live.md
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, Self

from roundlog.client.connection import Connection
from roundlog.client.nats_internals import HeldReading, attach, holdable, read_at_once
from roundlog.entry import LogEntry
from roundlog.parser import RoundFrames
from rounds.subjects import LIVE_SUBJECTS, live_subject_of

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
        self._held: HeldReading | None = None

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
        client = self._connection.client
        self._held = holdable(client) if read_at_once(client) else None

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

    # --- reading only when it is asked for -----------------------------------------------------------------------

    @property
    def can_be_held(self) -> bool:
        """Whether `hold` works on this connection."""
        return self._held is not None

    @property
    def is_held(self) -> bool:
        """Whether rounds wait in the kernel until `take`."""
        return self._held is not None and self._held.is_on

    def hold(self) -> None:
        """Let what the server sends wait until `take`; it has to be called often, also for pings of the server."""
        if self._held is not None:
            self._held.hold()

    def release(self) -> None:
        """Have everything read as soon as it comes."""
        if self._held is not None:
            self._held.release()

    def take(self) -> bool:
        """Read what has come, up to 64 KB, while it is held; return whether there may be more."""
        return self._held is not None and self._held.read()


class LiveGames:
    """Subscribes a connection of its own to live rounds of some games. Get it from `open`."""

    def __init__(self, connection: Connection, on_live: OnLive) -> None:
        self._connection = connection
        self._frames = RoundFrames(_PREFIX, lambda _token, entries: on_live(entries), by_token=False, republished=True)
        self._subscriptions: dict[str, Subscription] = {}

    @classmethod
    async def open(cls, connection: Connection, on_live: OnLive) -> Self:
        """As `LiveSubscription.open`; the connection is not made again when it is lost."""
        games = cls(connection, on_live)
        await attach(connection.client, games._frames.read)
        read_at_once(connection.client)
        return games

    async def follow(self, names: Collection[str]) -> None:
        """Subscribe to these names, which stand for games or for their corrections, and to no others.

        The answer to any later request shows that the server has the subscriptions, or `confirm` says why not.

        Raises:
            LogUnavailable: The connection is lost.
        """
        for name in names:
            if name not in self._subscriptions:
                subject = live_subject_of(name)
                self._subscriptions[name] = await self._connection.subscribe(subject, self._frames.on_message)
        for name in self._subscriptions.keys() - set(names):
            await self._connection.unsubscribe(self._subscriptions.pop(name))

    def confirm(self) -> None:
        """Check the subscriptions, once any later request has been answered; raise `LogDenied` as the other does."""
        if (denied := self._connection.denied(f"{_PREFIX}.")) is not None:
            raise denied
