"""Follow the log and publish it to the hub: every round, once, in order, through lost messages and NATS restarts.

Owns the live subscription and its repair from the log. Follows the log only while there are listeners: an idle relay,
whose CPU some platforms take away, would be a slow consumer. Does not know links. Why republish:
docs/adr/0002-republish-for-live.md
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Final

import structlog

from relay.live.bounds import Bounds
from relay.live.following.sequencer import Sequencer
from relay.live.following.wakeups import Wakeups
from relay.live.hub import Hub
from relay.live.item import Item
from roundlog.backoff import Backoff, jittered
from roundlog.client.connection import Connection, connect
from roundlog.entry import LogEntry
from roundlog.live import LiveSubscription
from roundlog.log_errors import LogError, LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import StreamWatch
from roundlog.reader import LogReader
from roundlog.stream import LogInfo, last_sequence, open_log, read_log
from roundlog.tasks import raise_if_cancelled
from rounds.subjects import is_corrections

log = structlog.get_logger()

_PARK_LIMIT: Final = 10_000
_PAGE: Final = 1000
_POLL_S: Final = 5.0
"""How often the log's tail is compared with ours: finds a lost message that has no later one."""
_LINGER_S: Final = 5.0
"""How long the feed outlives its last listener, so that a reconnect does not start it again."""
_SURE_S: Final = 3.0
"""How long a replicated log has to stay shorter than it was: a new leader may still be reading its tail."""
_LOOK_S: Final = 60.0
"""How long an edit of the stream may go unnoticed: thousands of relays ask. Missing live rounds are noticed at once."""
_AGAIN_S: Final = 0.25
_PAUSE_S: Final = (0.5, 5.0)


class Feed:
    """The one reader of the live log in this process. Works while `run` does, which connects it."""

    def __init__(self, settings: LogSettings, hub: Hub, reader: LogReader) -> None:
        self._settings = settings
        self._hub = hub
        self._reader = reader
        self._connection: Connection | None = None
        self._why_unavailable = ""  # although NATS was reached; addresses of servers are not for clients
        self._live: LiveSubscription | None = None
        self._wakeups: Wakeups | None = None
        self._reached = asyncio.Event()
        self._epoch = ""
        self._sequencer: Sequencer | None = None
        self._listeners = 0
        self._starting = asyncio.Lock()
        self._idle_from = 0.0  # loop time at which the last listener left
        self._stopping: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._newest_live = 0
        self._unheard = 0  # newest sequence that came before the sequencer was made
        self._suspected_resets = 0  # times that the log may have been rebuilt or lost its tail
        self._verified_resets = 0  # how many of them were checked
        self.repaired = 0
        """Rounds that the live subscription missed and the log supplied."""
        self.streams = StreamWatch()
        """What is known of the settings of the stream."""
        self._read_log_at = 0.0  # when its settings are looked at next
        self._polled_live = 0  # `_newest_live` at the last comparison with the log's tail

    async def listen(self) -> None:
        """Follow the log until `unlisten` was called as often. From now on, the hub gets every round.

        The hub has each round that has come until now, also if nobody watches its game, see `look`.

        Raises:
            LogUnavailable: The log cannot be followed now; `unlisten` must not be called.
        """
        self._listeners += 1
        try:
            if self._sequencer is None:
                async with self._starting:
                    if self._sequencer is None:
                        await self._start()
            self.look()
        except BaseException:
            self.unlisten()
            raise

    def listen_now(self) -> None:
        """Do as `listen`, when `is_following`."""
        self._listeners += 1
        self.look()

    def look(self) -> None:
        """Publish the rounds that wait because nobody watches their games: see `relay.live.following.wakeups`."""
        if self._wakeups is not None:
            self._wakeups.look()

    def unlisten(self) -> None:
        """Undo one `listen`. The feed stops a few seconds after the last, so that a reconnect does not restart it."""
        self._listeners -= 1
        if self._listeners == 0:
            self._stop_later()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Follow the log while the block runs; raise as `listen` does."""
        await self.listen()
        try:
            yield
        finally:
            self.unlisten()

    @contextmanager
    def listening_now(self) -> Iterator[None]:
        """Do as `listening`, when `is_following`."""
        self.listen_now()
        try:
            yield
        finally:
            self.unlisten()

    @property
    def why_unavailable(self) -> str:
        """Why the log cannot be followed now, in a sentence; empty while nothing is known."""
        return "" if self.connected else self._why_unavailable

    @property
    def connected(self) -> bool:
        """True while the log can be followed."""
        return self._connection is not None and self._connection.is_connected

    @property
    def is_following(self) -> bool:
        """True while every new round comes to the hub: there are listeners, or were a moment ago."""
        return self._sequencer is not None

    @property
    def rounds_wait(self) -> bool:
        """True while rounds of games that nobody watches are not read as they come."""
        return self._wakeups is not None and self._wakeups.is_on

    async def last_stored(self, *, within_s: float) -> int | None:
        """Ask the log for the sequence of its newest round; None when it does not answer within `within_s` seconds."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            return None
        try:
            async with asyncio.timeout(within_s):
                return await last_sequence(connection, self._settings)
        except (LogError, TimeoutError):
            return None

    async def reached(self) -> None:
        """Wait until the log is connected for the first time."""
        await self._reached.wait()

    async def run(self) -> None:
        """Connect to the log, however long that takes, and repair holes as they appear. Runs until cancelled.

        Raises:
            LogError: The log cannot be used at the start (never `LogUnavailable`).
        """
        backoff = Backoff(*_PAUSE_S)
        while True:
            is_reached = False
            try:
                async with connect(
                    self._settings,
                    name="stream-relay",
                    on_disconnected=self._on_disconnected,
                    on_reconnected=self._on_reconnected,
                ) as connection:
                    is_reached = True
                    await open_log(connection, self._settings, self.streams)
                    self._live = await LiveSubscription.open(connection, self._on_live)
                    self._wakeups = Wakeups(self._settings, self._live, self._hub.watched)
                    self._hub.on_watched(self._wakeups.on_watched)
                    self._connection = connection
                    self._why_unavailable = ""
                    self._reached.set()
                    log.info("log_connected")
                    async with self._wakeups.running():
                        await self._keep_whole(connection)
            except LogUnavailable as error:
                self._why_unavailable = str(error) if is_reached else ""
                wait_s = backoff.next_s()
                log.warning("log_unavailable", error=str(error), retry_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)

    async def _keep_whole(self, connection: Connection) -> None:
        """Read from the log what the subscription missed: when a hole shows, after a reconnect, every few seconds."""
        while True:
            raise_if_cancelled()  # connecting may have swallowed it
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not connection.is_connected:
                continue
            try:
                if asyncio.get_running_loop().time() >= self._read_log_at:
                    await self._read_log(connection)
                if self._sequencer is not None:
                    await self._catch_up(connection, self._sequencer)
            except LogError as error:  # the relay has worked, so an operator can mend the log while it waits
                log.warning("log_read_failed", error=str(error))
                await asyncio.sleep(_AGAIN_S)
                self._wake.set()

    async def _read_log(self, connection: Connection) -> LogInfo:
        """Return the state of the log; note how its settings differ, which an operator may edit at any time."""
        with nullcontext() if self._wakeups is None else self._wakeups.answers_come():
            info = await read_log(connection, self._settings, self.streams)
        # Replicas in the settings that the stream does not have yet may be added at any time.
        self._reader.replicas = max(info.replicas, self._settings.replicas)
        self._read_log_at = asyncio.get_running_loop().time() + jittered(
            _LOOK_S if self.streams.sentence is None else _POLL_S
        )
        return info

    # --- start and stop ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        connection, live = self._connection, self._live
        if connection is None or live is None or not connection.is_connected:
            raise LogUnavailable(self._why_unavailable or "NATS is not reachable")
        self._unheard = 0
        try:
            # First the subscription, then the tail: what is stored in between comes on both ways, and once.
            await live.subscribe()
            # Its answer shows that the server has the subscription, as a flush would. But nats-py stops reading for
            # good when a flush is answered that was given up.
            info = await self._read_log(connection)
            live.confirm()
            newest = _up_to(info.last, await self._reader.newest())
        except BaseException:  # also when the only listener has left meanwhile: nothing would stop the feed
            await self._unsubscribe()
            raise
        sequencer = self._begin(info, head=info.last, newest=newest)
        if self._unheard > info.last:  # stored after the tail was read: read it from the log
            sequencer.on_sign(self._unheard)
            self._wake.set()
        log.info("feed_started", epoch=info.epoch, head=info.last)

    def _stop_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle_from = loop.time()
        if self._stopping is None:  # else it is armed again when it runs: a timer for each request would cost more
            self._stopping = loop.call_at(self._idle_from + _LINGER_S, self._stop_if_idle)

    def _stop_if_idle(self) -> None:
        self._stopping = None
        if self._listeners:
            return
        loop, idle_until = asyncio.get_running_loop(), self._idle_from + _LINGER_S
        if loop.time() < idle_until:
            self._stopping = loop.call_at(idle_until, self._stop_if_idle)
        elif self._sequencer is not None:
            self._sequencer = None
            self._read_as_they_come()
            self._unsubscribing = asyncio.create_task(self._unsubscribe_if_idle(), name="feed-unsubscribe")
            log.info("feed_stopped")

    async def _unsubscribe_if_idle(self) -> None:
        async with self._starting:
            if self._sequencer is None:  # else it was started again meanwhile
                await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        if self._live is not None:
            try:
                await self._live.unsubscribe()
            except LogUnavailable as error:  # the subscription ends with the connection
                log.debug("unsubscribe_failed", error=str(error))

    # --- rounds ------------------------------------------------------------------------------------------------

    @property
    def _is_doubtful(self) -> bool:
        """Whether new rounds may be of another log than earlier ones. They are published once that is checked."""
        return self._suspected_resets > self._verified_resets

    async def _on_disconnected(self) -> None:
        self._suspected_resets += 1  # not only on reconnect: rounds may come before that is reported
        self._read_as_they_come()

    async def _on_reconnected(self) -> None:
        if self._live is not None:
            self._live.connected()
        self._suspected_resets += 1
        self._wake.set()

    def _read_as_they_come(self) -> None:
        if self._wakeups is not None:
            self._wakeups.reset()

    def _on_live(self, entries: list[LogEntry]) -> None:
        newest = entries[-1].sequence
        if self._wakeups is not None:
            self._wakeups.on_read(entries)
        if self._sequencer is None:
            self._unheard = newest
            return
        before, self._newest_live = self._newest_live, newest
        sequences = [entry.sequence for entry in entries]
        if not before or sequences != list(range(before + 1, before + 1 + len(entries))):  # nearly never
            for sequence in sequences:
                if sequence <= max(before, 1):  # a rebuilt log counts from 1, a truncated one from its end
                    self._suspected_resets += 1
                before = sequence
        if self._is_doubtful or self._hub.is_behind:  # in a long backlog, they are read from the log later
            self._sequencer.on_sign(newest)
            self._wake.set()
            return
        ready = self._sequencer.on_live(entries)
        if ready:
            self._hub.publish(ready)
        if self._sequencer.behind:
            self._wake.set()

    async def _catch_up(self, connection: Connection, sequencer: Sequencer) -> None:
        first, tail = await self._reader.first(), await self._reader.last()
        self.look()  # what waits is not missing
        if (self._is_doubtful or tail < sequencer.head) and await self._was_reset(connection, sequencer):
            return
        if tail > sequencer.known and self._newest_live == self._polled_live and not self._is_doubtful:
            self._read_log_at = 0.0  # stored and not republished: look at the settings in the next turn
            self._wake.set()
        self._polled_live = self._newest_live
        tail = max(tail, sequencer.known)  # the replica that answered may be behind
        self._hub.first = tail + 1 if first is None else first
        while sequencer.head < tail and self._sequencer is sequencer:
            page = await self._reader.page_up_to(tail, sequencer.head + 1, limit=_PAGE)
            # An empty page below the tail: those rounds have been purged.
            covered_to = page.entries[-1].sequence if page.entries else tail
            ready = sequencer.on_read(page.entries, covered_to=covered_to)
            if ready:
                self.repaired += len(page.entries)
                log.info("feed_repaired", rounds=len(page.entries), head=sequencer.head)
                if len(page.entries) >= _PAGE:
                    self._hub.expect_backlog(0)
                self._hub.publish(ready)
                await self._hub.caught_up()

    async def _was_reset(self, connection: Connection, sequencer: Sequencer) -> bool:
        """Check whether the log was rebuilt or lost its tail; if so, restart from its present state and return True.

        Called when the log seems to end before what was seen of it, or may be another one. Only the leader is asked,
        since a replica may be behind.
        """
        seen, suspected = sequencer.head, self._suspected_resets
        info = await self._read_log(connection)
        if info.epoch == self._epoch and info.last < seen and info.replicas > 1:
            await asyncio.sleep(_SURE_S)
            info = await self._read_log(connection)
        if self._sequencer is not sequencer:
            return True
        if info.epoch != self._epoch:
            log.error("log_rebuilt", old_epoch=self._epoch, new_epoch=info.epoch, seen=seen, last=info.last)
            self._begin(info, head=0, newest=())
        elif (end := await self._end_of_ours(info.last)) < seen:
            log.error("log_tail_lost", epoch=info.epoch, seen=seen, end=end, last=info.last)
            newest = _up_to(end, await self._reader.newest())
            if self._sequencer is not sequencer:
                return True
            self._begin(info, head=end, newest=newest)
        else:
            self._verified_resets = suspected
            return False
        self._verified_resets = suspected
        self._wake.set()
        return True

    async def _end_of_ours(self, last: int) -> int:
        """Return up to which sequence the log has the rounds that we know: `last`, its end, or where others follow."""
        ours = [item for item in self._hub.ring.items() if item.sequence <= last]
        low, high = -1, len(ours) - 1
        if high < 0 or await self._still_holds(ours[high]):
            return last
        while high - low > 1:
            middle = (low + high) // 2
            if await self._still_holds(ours[middle]):
                low = middle
            else:
                high = middle
        return ours[0].sequence - 1 if low < 0 else ours[low].sequence

    async def _still_holds(self, item: Item) -> bool:
        """Whether the log holds this round at its sequence, or none there."""
        entry = await self._reader.next_of_leader(item.sequence)
        return entry is None or entry.sequence != item.sequence or entry == (item.sequence, item.game, item.data)

    def _begin(self, info: LogInfo, *, head: int, newest: Iterable[LogEntry]) -> Sequencer:
        self._epoch = info.epoch
        self._read_as_they_come()
        self._sequencer = sequencer = Sequencer(head, park_limit=_PARK_LIMIT)
        self._hub.begin(Bounds(info.epoch, info.first, head), newest)
        return sequencer


def _up_to(end: int, newest: Iterable[LogEntry]) -> list[LogEntry]:
    """Return the newest rounds up to a sequence, and all newest corrections: that there is a later one counts."""
    return [entry for entry in newest if entry.sequence <= end or is_corrections(entry.game)]
