"""The open links of this process: from a permit to the end, and the drain of all of them.

Owns what happens around a link of any protocol: the feed runs while there are links, every link has a heartbeat, its
start and end are logged and counted, a drain ends all of them. Does not know how a protocol looks on the wire
(`relay.http`, `relay.rpc`), nor what a disconnect holds (`relay.live.ending`).
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final

import structlog

from auth.grants import Grant
from relay.admission.caller import Caller, shown_games
from relay.admission.capacity import LinkProtocol
from relay.admission.gate import Admission, Permit
from relay.admission.limits.link_limits import FRESH, Opening
from relay.admission.refusals import Refusals
from relay.config.sections import DrainSettings, LinkSettings
from relay.errors import Unavailable
from relay.links.drain_schedule import DrainSchedule
from relay.links.held import Held
from relay.links.revoker import Revoker
from relay.links.session import Session
from relay.live.ending import Ender
from relay.live.following.feed import Feed
from relay.live.heartbeat import Heartbeats
from relay.live.hub import Hub
from relay.live.link import CloseReason, Link
from roundlog.log_errors import LogError
from roundlog.promises.stream_watch import OBSTACLE
from rounds.subjects import games_of

log = structlog.get_logger()

_YOUNGEST_SHARE: Final = 5 / 6
"""A link ends at a random age between this share of the maximum and the maximum."""

_ENDS_PER_TURN: Final = 100
"""Links that a drain ends in one turn of the loop, when it has no time to wait between them."""


class LinkRegistry:
    """The parts that links of all protocols share, and the links that are open."""

    def __init__(
        self, hub: Hub, feed: Feed, admission: Admission, heartbeats: Heartbeats, ender: Ender, links: LinkSettings
    ) -> None:
        self.hub = hub
        self.feed = feed
        self.admission = admission
        self.ender = ender
        self.settings = links
        self._heartbeats = heartbeats
        self._links: set[Link] = set()
        self.revoker = Revoker(admission)
        self.refusals = Refusals(admission.accounts)
        """Clients that got no link, or no answer; counted where their protocol answers them."""
        self.closed: Counter[CloseReason] = Counter()
        """How many links have ended, by reason, since the start of this process."""

    def obstacle(self) -> str | None:
        """Return in one word why this instance takes no new clients; None when it takes them."""
        if self.admission.draining:
            return "draining"
        if self.feed.streams.sentence is not None:
            return OBSTACLE
        if not self.feed.connected:
            return "log_unavailable"
        if self.admission.policy.obstacle is not None:
            return "key_store_unavailable"
        return "capacity" if self.admission.full else None

    def facts(self, obstacle: str) -> Mapping[str, object]:
        """Return what an operator needs to know beside an `obstacle`: how many links fit, and why; or a sentence."""
        if obstacle == "capacity":
            return {"links": self.admission.links, "max_links": self.admission.max_links, "bound": self.admission.bound}
        sentence = self.feed.streams.sentence
        if obstacle == "key_store_unavailable":
            sentence = self.admission.policy.obstacle
        if obstacle == "log_unavailable":
            sentence = self.feed.why_unavailable or sentence
        return {} if sentence is None else {"detail": sentence}

    def settle_usage(self) -> Iterator[None]:
        """Bring the accounts of keys up to date, in slices; yields after each one."""
        accounts = self.admission.accounts
        for key_id, rounds in self.admission.payers.reads():
            if key_id:  # the relay itself reads, too
                accounts.of(key_id).log_rounds = rounds
        yield from self.hub.settle_usage()

    def age_limit_s(self) -> float:
        """Draw how old a new link may get, in seconds, so that links that open together do not end together."""
        return self.settings.max_age_s * random.uniform(_YOUNGEST_SHARE, 1)  # noqa: S311

    async def take_permit(
        self, protocol: LinkProtocol, grant: Grant, caller: Caller, opening: Opening = FRESH
    ) -> Permit:
        """Take the permit of one link, before its handshake; `release_permit` gives it back after the link's end.

        Raises:
            Unavailable: This instance is full, draining, or cannot follow the log now. No permit was taken.
            TooManyRequests: Its key or address may open no link now.
        """
        permit = self._enter(protocol, grant, caller, opening)
        try:
            await self.feed.listen()
        except LogError as error:
            self.admission.leave(permit)
            raise self._cannot_follow() from error
        except BaseException:
            self.admission.leave(permit)
            raise
        return permit

    def take_permit_now(self, protocol: LinkProtocol, grant: Grant, caller: Caller, opening: Opening = FRESH) -> Permit:
        """Do as `take_permit` while the log is followed, for a link whose credential was judged in this turn."""
        changes = self.admission.changes
        taking = self.take_permit(protocol, grant, caller, opening)
        try:
            taking.send(None)
        except StopIteration as taken:
            permit: Permit = taken.value
            permit.judged_at = changes
            return permit
        taking.close()
        raise AssertionError("nothing is waited for while the log is followed")

    def _enter(self, protocol: LinkProtocol, grant: Grant, caller: Caller, opening: Opening) -> Permit:
        permit = self.admission.enter(protocol, grant, caller, opening)
        if not self.feed.connected:  # open links stay and miss nothing; another instance may reach the log
            self.admission.leave(permit)
            raise self._cannot_follow()
        return permit

    def _cannot_follow(self) -> Unavailable:
        return Unavailable("log_unavailable", self.ender.delays.after_refusal())

    def release_permit(self, permit: Permit) -> None:
        """Give back the permit of one link."""
        self.feed.unlisten()
        self.admission.leave(permit)

    @asynccontextmanager
    async def permit(
        self, protocol: LinkProtocol, grant: Grant, caller: Caller, opening: Opening = FRESH
    ) -> AsyncIterator[Permit]:
        """Hold a permit while the block runs; raise as `take_permit` does."""
        permit = await self.take_permit(protocol, grant, caller, opening)
        try:
            yield permit
        finally:
            self.release_permit(permit)

    def adopt(self, link: Link, session: Session, permit: Permit, games: Iterable[str]) -> None:
        """Register a link until its connection or stream is closed; its permit is then given back."""
        named = games_of(games)
        held = Held(link, permit, session=session, games=named)
        link.on_closed = partial(self._closed, held, session)
        self._opened(held, named)

    @contextmanager
    def open(self, link: Link, permit: Permit, games: Iterable[str]) -> Iterator[None]:
        """Register a link while the block runs; no `games`: all that its grant covers."""
        named = games_of(games)
        held = Held(link, permit, session=None, games=named or None)
        self._opened(held, named)
        try:
            yield
        finally:
            self._gone(held)

    def _opened(self, held: Held, games: Iterable[str]) -> None:
        link, permit = held.link, held.permit
        grant, caller = permit.grant, permit.caller
        log.info(
            "link_opened",
            link=link.id,
            protocol=permit.protocol,
            key=grant.key_id,
            games=shown_games(games),
            address=caller.address,
            user_agent=caller.user_agent,
            **_token_of(grant),
        )
        link.account = self.admission.accounts.of(grant.key_id)
        link.account.opened()
        self._links.add(link)
        self._heartbeats.add(link, interval_s=link.heartbeat_s)
        if self.admission.draining:  # it began during this link's handshake
            link.end(CloseReason.DRAINING)
        self.revoker.opened(held)

    def _closed(self, held: Held, session: Session) -> None:
        session.close()
        self._gone(held)
        self.release_permit(held.permit)

    def _gone(self, held: Held) -> None:
        link, permit = held.link, held.permit
        self.revoker.closed(held)
        self._heartbeats.remove(link)
        self._links.discard(link)
        if link.account is not None:
            link.account.closed()
        reason = CloseReason.CLIENT if link.ended is None else link.ended.reason
        self.closed[reason] += 1
        age_s = round(asyncio.get_running_loop().time() - link.opened_at, 1)
        log.info(
            "link_closed",
            link=link.id,
            protocol=permit.protocol,
            key=permit.grant.key_id,
            reason=reason,
            age_s=age_s,
        )

    async def drain(self, settings: DrainSettings, *, close_listeners: Callable[[], None]) -> None:
        """Take no new links, and end the open ones in random order, spread over the grace less its margin.

        Returns when every link has closed, and not before `accept_s` if that is set; or when the grace is over.

        Args:
            settings: How long it takes.
            close_listeners: Called when new connections are no longer accepted, if that is before the end.
        """
        self.admission.draining = True
        spread_s = max(0.0, settings.grace_s - settings.margin_s)
        links = list(self._links)
        random.shuffle(links)
        log.info("drain_started", links=len(links), spread_s=spread_s)
        loop = asyncio.get_running_loop()
        started = loop.time()
        closed = asyncio.Event()

        def close() -> None:
            close_listeners()
            closed.set()

        closing = loop.call_at(started + settings.accepting_s, close)
        try:
            await self._end_all(links, settings, spread_s)
            if settings.accept_s is not None:  # the platform needs this time, however few links there are
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(started + settings.grace_s):
                        await closed.wait()
        finally:
            closing.cancel()
        log.info("drain_finished", links=self.admission.links, took_s=round(loop.time() - started, 2))

    async def _end_all(self, links: list[Link], settings: DrainSettings, spread_s: float) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        least_s = min(spread_s, settings.margin_s / 2)
        schedule = DrainSchedule(len(links), started=started, spread_s=spread_s, least_s=least_s)
        at_once = 0
        for link in links:
            # Wait only when ahead of schedule: one timer serves all links.
            wait_s = schedule.wait_s(loop.time())
            if link not in self._links:  # its client has left
                continue
            at_once = 0 if wait_s > 0 else at_once + 1
            if wait_s > 0 or at_once % _ENDS_PER_TURN == 0:
                await asyncio.sleep(max(0, wait_s))
            if link in self._links:
                link.end(CloseReason.DRAINING)
        closed_by = started + settings.grace_s
        if schedule.stalled:  # clients that were ended last have their time to read it
            closed_by = max(closed_by, loop.time() + least_s)
        try:
            async with asyncio.timeout_at(closed_by):
                await self.admission.emptied()
        except TimeoutError:
            for link in list(self._links):
                link.abort()


def _token_of(grant: Grant) -> Mapping[str, str]:
    """Return what an operator needs to revoke a link's token, for its log line."""
    found = {} if grant.token_id is None else {"token_id": grant.token_id}
    if grant.subject is not None:
        found["subject"] = grant.subject
    return found
