"""End open links whose credential was taken back, and give the others what their credential allows now.

Owns which links are judged again: those of keys that have changed or expired, of tokens and subjects that were revoked,
and each new one, since its key may have changed during its handshake. `auth.standing` judges;
`relay.links.revoke_pace` says how fast.
Why: docs/adr/0027-changed-keys-judge-their-links.md
"""

import asyncio
import math
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import structlog

from auth.revocations import Revocation
from auth.standing import Withdrawn
from relay.admission.gate import Admission
from relay.links.expiries import Expiries
from relay.links.held import Held, HeldLinks, Revocable
from relay.links.revoke_pace import RevokePace
from relay.live.link import CloseReason

log = structlog.get_logger()

_FIELDS: Final = {"key": "key", "token": "token_id", "subject": "subject"}
"""The name of a holder in log lines."""


class Revoker:
    """Judges the links of one process again whenever their credentials change. `run` must run while there are links."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = HeldLinks()
        self._due: dict[Revocable, None] = {}  # holders whose links are to be judged, in this order
        self._changed = asyncio.Event()
        self._expiries = Expiries()

    def opened(self, held: Held) -> None:
        """Take a new link, whose session has not started, and end it when its credential was taken back meanwhile."""
        key_id = held.permit.grant.key_id
        if Revocable("key", key_id) not in self._held:
            self._note_expiry(key_id, after=-math.inf)  # it may have expired since it was checked in this turn
        self._held.add(held)
        if held.permit.judged_at != self._admission.changes:
            self._judge(held, is_new=True)

    def closed(self, held: Held) -> None:
        """Forget a link."""
        self._held.remove(held)

    async def run(self) -> None:
        """Watch keys, revocations and the clock until cancelled."""
        keys, revocations = self._admission.keys, self._admission.revocations
        keys.watchers.append(self._on_keys)
        revocations.watchers.append(self._on_revocations)
        try:
            while True:
                await self._something_due()
                await self._judge_due()
        finally:
            keys.watchers.remove(self._on_keys)
            revocations.watchers.remove(self._on_revocations)

    def _on_keys(self, key_ids: frozenset[str]) -> None:
        for key_id in key_ids:
            self._judge_later(Revocable("key", key_id))

    def _on_revocations(self, revocations: tuple[Revocation, ...]) -> None:
        for revocation in revocations:
            self._judge_later(Revocable(revocation.what, revocation.value))

    def _judge_later(self, holder: Revocable) -> None:
        if holder in self._held:
            self._due[holder] = None
            self._changed.set()

    def _note_expiry(self, key_id: str, *, after: float) -> None:
        key = self._admission.keys.get(key_id)
        at = None if key is None else key.next_expiry(after)
        self._expiries.put(key_id, at)
        if at is not None:
            self._changed.set()  # the wait may have no end so far

    async def _something_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._expiries.wait_s(time.time())):
                await self._changed.wait()
        self._changed.clear()
        for key_id in self._expiries.due(time.time()):
            self._due[Revocable("key", key_id)] = None

    async def _judge_due(self) -> None:
        pace = RevokePace(sum(map(self._held.count, self._due)), now=time.perf_counter())
        while self._due:
            holder = next(iter(self._due))
            del self._due[holder]  # a change from now on means to judge again
            if holder.what == "key":
                self._note_expiry(holder.value, after=time.time())
            started, ended = time.perf_counter(), Counter[Withdrawn]()
            for held in self._held.of(holder):
                await pace.wait()
                why = self._judge(held)
                if why is not None:
                    ended[why] += 1
            for why, links in ended.items():
                took_s = round(time.perf_counter() - started, 3)
                log.info("links_revoked", **{_FIELDS[holder.what]: holder.value}, why=why, links=links, took_s=took_s)

    def _judge(self, held: Held, *, is_new: bool = False) -> Withdrawn | None:
        """Judge one link; return why it was ended, None when it was not. `is_new`: it follows nothing yet."""
        link = held.link
        if not held.is_open or link.ended is not None:
            return None
        try:
            verdict = self._admission.standing(held.permit, held.asked if is_new else held.follows())
        except Exception:  # a bug: what cannot be judged is not allowed
            log.exception("link_failed", link=link.id)
            link.cut(CloseReason.FAILED)
            return None
        if isinstance(verdict, Withdrawn):
            link.end(CloseReason.REVOKED)
            return verdict
        if verdict is not held.permit.grant:
            held.regrant(verdict)
        return None
