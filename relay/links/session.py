"""What one link follows: some games live, others in a replay that leads to live.

Owns how a link's subscription starts, what client messages change (``subscribe``, ``unsubscribe``, ``ping``), the
link's cursor, and that no replay outlives its link. A client that sends no message gets rounds only. Does not know the
wire.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

import structlog

from relay.admission.gate import Permit
from relay.admission.requested import named_games
from relay.errors import BadMessage, ClientError, TooManyRequests
from relay.history.at_once import resume_at_once
from relay.history.history import History
from relay.history.reading.payer import RELAY, Payer
from relay.history.replay import Replay
from relay.history.start import Start, hello
from relay.links.messages import ClientMessage
from relay.live.channels import Subscription
from relay.live.link import CloseReason, Link
from rounds import Catalogue, Cursor, InvalidCursor, UnknownGame
from rounds.subjects import game_of, games_of, has_corrections, is_corrections, with_corrections

log = structlog.get_logger()

_MAX_REPLAYS: Final = 4
"""Replays that one link may have at a time."""

_NOTHING: Final = Subscription.nothing()

Games = frozenset[str]


class Session:
    """One link's subscription. Entered for as long as the link is open."""

    __slots__ = (
        "_asks_corrections",
        "_catalogue",
        "_history",
        "_hub",
        "_link",
        "_live",
        "_payer",
        "_replays",
        "_shows_corrections",
        "_use",
        "grant",
    )

    def __init__(
        self, history: History, catalogue: Catalogue, permit: Permit, link: Link, payer: Payer = RELAY
    ) -> None:
        """`payer` is charged for what replays read."""
        self._history = history
        self._hub = history.hub
        self._catalogue = catalogue
        self.grant = permit.grant
        """What client messages may ask for; replaced when the credential's key has changed."""
        self._use = permit.use
        self._link = link
        self._payer = payer
        self._live = _NOTHING
        self._asks_corrections = False  # of games that a message names without saying
        self._shows_corrections = False
        self._replays: dict[Replay, asyncio.Task[None] | None] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = self.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> list[asyncio.Task[None]]:
        """Stop following; return the replays that are being cancelled."""
        tasks = [task for task in self._replays.values() if task is not None]
        self._replays.clear()
        for task in tasks:
            task.cancel()
        self._hub.remove(self._link)
        self._link.cursor = None  # it refers to this object: both would wait for Python's garbage collector
        return tasks

    def start(self, subscription: Subscription, start: Start) -> None:
        """Follow what was asked for when the link was opened; nothing when it has been ended since."""
        if self._link.ended is not None:
            return
        self._link.cursor = self.cursor
        self._link.receives_events = start.receives_events
        self._asks_corrections = self._shows_corrections = has_corrections(subscription.games)
        if start.is_live:
            self._live = self._hub.add(self._link, subscription)
            if start.receives_events:
                self._link.send_event(hello(self._hub.bounds, complete=True))
        else:
            self._live = Subscription(_NOTHING.games, subscription.filter)
            self._replay(subscription, start)

    def cursor(self) -> Cursor | None:
        """Return the cursor up to which everything was written to the link; None when there is no such cursor yet."""
        cursors = [replay.cursor for replay in self._replays]
        if None in cursors:
            return None
        head = self._hub.head
        if self._live.games or not cursors:
            cursors.append(head)
        # A cursor in an earlier log comes before every cursor in this one.
        return min(filter(None, cursors), key=lambda cursor: (cursor.epoch == head.epoch, cursor.sequence))

    @property
    def games(self) -> Games:
        """The games that the link follows now, live or in a replay."""
        return games_of(self._followed())

    def _followed(self) -> Games:
        """The games, and the corrections of games, that the link follows now."""
        return self._live.games | self._replayed()

    def _replayed(self) -> Games:
        return frozenset().union(*(replay.wanted.games for replay in self._replays))

    def on_message(self, message: ClientMessage) -> None:
        """Do what a client message asks, and answer it; end the link when its key has sent too many.

        Raises:
            BadMessage: A game is unknown or not covered by the credential, or the cursor is malformed.
        """
        if message.action == "ping":
            cursor = self.cursor() if self._link.receives_events else None
            self._link.send_event({"event": "pong"} | ({} if cursor is None else {"cursor": str(cursor)}))
            return
        try:
            self._use.subscribe()
        except TooManyRequests:
            self._link.end(CloseReason.RATE_LIMITED)
            return
        games, after = self._read(message)
        subscribes = message.action == "subscribe"
        wanted, unwanted = self._with_corrections(games, message.corrections)
        if after is not None or not subscribes:
            self._drop(with_corrections(games))
        elif unwanted:
            self._drop(unwanted)
        if subscribes and after is not None and len(self._replays) >= _MAX_REPLAYS:
            raise BadMessage(f"more than {_MAX_REPLAYS} replays at a time on one connection")
        replayed = self._replayed()
        in_force = self._live.games | replayed | (wanted if subscribes else frozenset())
        self._link.send_event(self._subscribed(in_force))
        if subscribes and after is None:
            self._follow(wanted - replayed)
        elif subscribes:
            self._link.receives_events = True
            self._replay(self._live._replace(games=wanted), Start(after=after), checked=False)

    def _read(self, message: ClientMessage) -> tuple[Games, Cursor | None]:
        """Return the games that a message names, and its cursor."""
        if not message.games:
            raise BadMessage(f"games must be a list of slugs to {message.action}")
        if message.action != "subscribe" and message.corrections is not None:
            raise BadMessage("corrections is for subscribe; unsubscribe ends games and their corrections")
        try:
            games = named_games(self._catalogue, self.grant.games, message.games)
            return games, None if message.after is None else Cursor.parse(message.after)
        except (ClientError, UnknownGame, InvalidCursor) as error:
            raise BadMessage(str(error)) from error

    def _with_corrections(self, games: Games, asked: bool | None) -> tuple[Games, Games]:
        """Return what a client that names games wants of them, and what it does not want any more."""
        if asked is None:
            asked = self._asks_corrections
        elif asked:
            self._shows_corrections = True
        else:
            return games, with_corrections(games) - games
        return (with_corrections(games) if asked else games), frozenset()

    def _subscribed(self, names: Games) -> dict[str, object]:
        """Return the event that says what is followed; of corrections only to a client that has asked for some."""
        event: dict[str, object] = {"event": "subscribed", "games": sorted(games_of(names))}
        if self._shows_corrections:
            event["corrections"] = sorted(game_of(name) for name in names if is_corrections(name))
        return event

    def _follow(self, games: Games) -> None:
        followed = self._live.games | games if self._live.games else games
        self._live = self._hub.add(self._link, Subscription(followed, self._live.filter))

    def _drop(self, games: Games) -> None:
        if self._live.games & games:
            self._live = self._hub.add(self._link, self._live._replace(games=self._live.games - games))
        for replay, task in list(self._replays.items()):
            replay.narrow(games)
            if not replay.wanted.games and task is not None:
                del self._replays[replay]
                task.cancel()

    def _replay(self, subscription: Subscription, start: Start, *, checked: bool = True) -> None:
        """Start a replay; `checked`: its number was checked before the link was opened."""
        if resume_at_once(self._history, self._link, subscription, start):
            if self._link.ended is None:
                self._follow(subscription.games)
            return
        replay = Replay(
            self._history,
            self._link,
            subscription,
            start,
            join=self._joined,
            finish=self._finished,
            payer=self._payer,
        )
        self._replays[replay] = None
        if not replay.begin():
            if not checked and not self._may_read():
                return
            self._use.begin_replay()
            task = asyncio.create_task(replay.run(), name=f"replay-{self._link.id}")
            task.add_done_callback(self._check)
            self._replays[replay] = task

    def _joined(self, replay: Replay) -> None:
        del self._replays[replay]
        if self._link.ended is None:  # it may have been ended while the replay waited for its client
            self._follow(replay.wanted.games)

    def _finished(self, replay: Replay) -> None:
        self._link.end(CloseReason.COMPLETED)

    def _may_read(self) -> bool:
        """End the link when too many replays of its key read the log."""
        try:
            self._use.check_replays()
        except TooManyRequests:
            self._link.end(CloseReason.RATE_LIMITED)
            return False
        return True

    def _check(self, task: asyncio.Task[None]) -> None:
        self._use.end_replay()
        if task.cancelled():
            if task in self._replays.values():  # not by us, and nobody else would continue it
                log.error("replay_failed", link=self._link.id, error="its task was cancelled")
                self._link.end(CloseReason.FAILED)
        elif (error := task.exception()) is not None:
            log.error("replay_failed", link=self._link.id, exc_info=error)
            self._link.end(CloseReason.FAILED)
