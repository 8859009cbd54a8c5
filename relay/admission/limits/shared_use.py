"""What keys use on all relays: each relay reports its own use and adds that of the others.

Owns the messages and how often they are sent: each second, and earlier when a key has used a twentieth of a limit.
So a relay knows what others admitted at most `EVERY_S` ago or, of a key that uses much, `SOON_S` ago. Use is reported
as the time in which it is regained, so that no relay has to know the limits of another. Without NATS each relay
applies the limits alone. Why: docs/adr/0028-limits-are-token-buckets.md
"""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, TypeVar

import msgspec
import structlog

from relay.admission.limits.ledger import SHARED
from relay.admission.limits.limits import ClientLimits
from relay.admission.limits.link_limits import decrease
from relay.admission.limits.meters import Rate
from roundlog.bus import RelayBus
from roundlog.log_settings import LogSettings

log = structlog.get_logger()

T = TypeVar("T")

EVERY_S: Final = 1.0
SOON_S: Final = 0.1
_SOON_SHARE: Final = 0.05
_WHOLE_S: Final = 5.0
"""Time between two reports of all open links, for relays that missed one."""
_FORGET_S: Final = 16.0
"""A relay that has reported nothing for this time is gone, and its links with it."""
_ENTRIES: Final = 500
"""Keys in one message: about 30 KB."""
_ACCOUNTS: Final = 50_000
"""Keys whose use is kept for the next report, and keys of another relay whose links are known."""
_MOST_ACCOUNTS: Final = 200_000
"""Keys of all other relays together whose links are known: 40 MB."""
_RELAYS: Final = 1000
_NAME_CHARACTERS: Final = 128
"""Of a relay, and of a key or identity: ours are shorter."""
_MOST_S: Final = 120.0
"""A key is in debt for so long at most because of what others report: two periods of a limit per minute."""


class Report(msgspec.Struct, omit_defaults=True):
    """One message."""

    relay: str
    used: dict[str, dict[str, float]] = {}
    """By limit and key: the seconds in which what was used since the last report is regained."""
    links: dict[str, int] = {}
    """Open links of keys, those whose number has changed; of all keys when `whole`."""
    whole: bool = False
    """Keys that are not in `links` have none."""
    asks: bool = False
    """The relay has just been connected: others report all their links."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Report).decode


def subject_of(settings: LogSettings) -> str:
    """Return the subject on which the relays of a log report."""
    return f"relay.limits.{settings.stream}"


class SharedUse:
    """The reports of one relay, and what others have reported."""

    def __init__(self, limits: ClientLimits, settings: LogSettings) -> None:
        self._limits = limits
        self._bus = RelayBus(settings, subject_of(settings), self.received)
        self._name = secrets.token_hex(8)
        self._used: defaultdict[str, defaultdict[str, float]] = _no_use()
        self._changed: set[str] = set()
        self._reported: Counter[str] = Counter()  # links
        self._soon = asyncio.Event()
        self._whole_at = 0.0
        self._is_asked = True
        self._leaves = False
        self._elsewhere: Counter[str] = Counter()
        self._known_accounts = 0  # of all relays
        self._relays: dict[str, tuple[float, Counter[str]]] = {}
        limits.ledger.on_use = self._note_use
        limits.of_links.on_change = self._note_links
        limits.of_links.elsewhere = self._elsewhere.__getitem__
        limits.other_relays = self._others

    def _others(self) -> int:
        return len(self._relays) if self._bus.reaches_others else 0

    async def connect(self) -> None:
        """Stay connected to other relays until cancelled."""
        await self._bus.run(self._connected)

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await self._report()
            await asyncio.sleep(SOON_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S - SOON_S):
                    await self._soon.wait()

    async def leave(self) -> None:
        """Report no links from now on: those of this relay are about to be opened on others."""
        self._leaves = True
        await self._bus.send(_encode(Report(self._name, whole=True)))

    # --- reports of this relay -----------------------------------------------------------------------------------

    def _note_use(self, name: str, account: str, time_s: float, rate: Rate) -> None:
        used = self._used[name]
        if account not in used and len(used) >= _ACCOUNTS:
            return
        used[account] += time_s
        if used[account] > rate.period_s * _SOON_SHARE:
            self._soon.set()

    def _note_links(self, account: str) -> None:
        self._changed.add(account)
        known, now = self._reported[account], self._limits.of_links.links[account]
        if abs(now - known) > _SOON_SHARE * known:
            self._soon.set()

    async def _connected(self) -> None:
        await self._bus.send(_encode(Report(self._name, asks=True)))
        self._is_asked = True
        self._soon.set()

    async def _report(self) -> None:
        now = asyncio.get_running_loop().time()
        self._soon.clear()
        self._forget_silent(now)
        is_whole = self._is_asked or now >= self._whole_at
        used, self._used = self._used, _no_use()
        links = self._links_to_report(is_whole)
        if is_whole:
            self._is_asked, self._whole_at = False, now + _WHOLE_S
        for report in self._reports(used, links, is_whole=is_whole):
            if not await self._bus.send(_encode(report)):
                self._is_asked = True  # what was not sent is lost: others count it when the relay reports all
                return

    def _links_to_report(self, is_whole: bool) -> dict[str, int]:
        links, changed = self._limits.of_links.links, self._changed
        self._changed = set()
        if self._leaves:
            return {}
        if is_whole:
            self._reported = Counter(links)
            return dict(links)
        for account in changed:
            self._reported[account] = links[account]
        self._reported = Counter({account: count for account, count in self._reported.items() if count})
        return {account: links[account] for account in changed}

    def _reports(
        self, used: Mapping[str, Mapping[str, float]], links: Mapping[str, int], *, is_whole: bool
    ) -> Iterator[Report]:
        entries = [(name, account, time_s) for name, of in used.items() for account, time_s in of.items()]
        first = Report(self._name, whole=is_whole)
        for batch in _batches(entries):
            report, first = first, Report(self._name)
            for name, account, time_s in batch:
                report.used.setdefault(name, {})[account] = round(time_s, 4)
            yield report
        for links_ in _batches(list(links.items())):
            report, first = first, Report(self._name)
            report.links = dict(links_)
            yield report
        if first.whole:
            yield first

    # --- reports of others ---------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take a report; one that is malformed, or of another program, changes nothing."""
        try:
            report = _decode(data)
        except (msgspec.MsgspecError, RecursionError):
            log.debug("limits_report_malformed")
            return
        if report.relay == self._name:
            self._bus.came_back()
            return
        if report.relay not in self._relays and (len(self._relays) >= _RELAYS or len(report.relay) > _NAME_CHARACTERS):
            return
        if report.asks:
            self._is_asked = True
            self._soon.set()
        self._add_use(report.used)
        self._add_links(report)

    def _add_use(self, used: Mapping[str, Mapping[str, float]]) -> None:
        for name in SHARED:
            for account, time_s in used.get(name, {}).items():
                if time_s > 0 and len(account) <= _NAME_CHARACTERS:
                    self._limits.ledger.used_elsewhere(name, account, min(time_s, _MOST_S), most_s=_MOST_S)

    def _add_links(self, report: Report) -> None:
        _, known = self._relays.get(report.relay, (0.0, Counter[str]()))
        if report.whole:
            self._take_away(known)
            known = Counter()
        for account, count in report.links.items():
            if (account in known or self._may_know(account, known)) and 0 <= count < 1 << 31:
                accounts = len(known)
                self._elsewhere[account] += count - known[account]
                known[account] = count
                if not count:
                    decrease(known, account)
                if not self._elsewhere[account]:
                    decrease(self._elsewhere, account)
                self._known_accounts += len(known) - accounts
        self._relays[report.relay] = (asyncio.get_running_loop().time(), known)

    def _may_know(self, account: str, known: Counter[str]) -> bool:
        """Whether the links of one more key of a relay may be remembered."""
        is_name = len(account) <= _NAME_CHARACTERS
        return is_name and len(known) < _ACCOUNTS and self._known_accounts < _MOST_ACCOUNTS

    def _take_away(self, links: Mapping[str, int]) -> None:
        self._known_accounts -= len(links)
        for account, count in links.items():
            self._elsewhere[account] -= count
            if self._elsewhere[account] <= 0:
                del self._elsewhere[account]

    def _forget_silent(self, now: float) -> None:
        for relay, (heard_at, links) in list(self._relays.items()):
            if now - heard_at > _FORGET_S:
                del self._relays[relay]
                self._take_away(links)


def _no_use() -> defaultdict[str, defaultdict[str, float]]:
    return defaultdict(lambda: defaultdict(float))


def _batches(items: list[T]) -> Iterable[list[T]]:
    """Divide what one message cannot hold."""
    return (items[at : at + _ENTRIES] for at in range(0, len(items), _ENTRIES))
