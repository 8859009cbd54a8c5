"""Which links are judged when credentials change, and how much of a turn of the event loop that takes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import pytest

from auth.grants import Grant
from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.revocations import Revocation, Revocations
from auth.standing import Withdrawn
from auth.tokens import TokenSigner
from relay.admission.caller import Caller
from relay.admission.capacity import Capacity
from relay.admission.gate import Admission, Permit
from relay.admission.limits.limits import ClientLimits
from relay.config.sections import LimitSettings
from relay.links.held import Held, HeldLinks, Revocable
from relay.links.revoker import Revoker
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason
from relay.live.ring import Ring
from tests.relay.live.recording_link import RecordingLink
from tests.waiting import until

KEY: Final = Key("partner", "private", secrets=(stored(generate("private")[0]),))
OTHER: Final = Key("other", "private", secrets=(stored(generate("private")[0]),))
CALLER: Final = Caller("127.0.0.1", "test")


class CountingAdmission(Admission):
    """Counts what is judged; `takes_s`: how long each judgement takes."""

    judged = 0
    takes_s = 0.0
    fails = False

    def standing(self, permit: Permit, follows: frozenset[str] | None) -> Grant | Withdrawn:
        self.judged += 1
        until_s = time.perf_counter() + self.takes_s
        while time.perf_counter() < until_s:
            pass
        if self.fails:
            raise RuntimeError("a bug")
        return super().standing(permit, follows)


class Rig:
    """A revoker that runs, with links that record their ends."""

    def __init__(self) -> None:
        self.keys, self.revocations = KeyRing((KEY, OTHER)), Revocations()
        self.admission = CountingAdmission(
            self.keys,
            TokenSigner.ephemeral(),
            capacity=Capacity.of_links(1_000_000),
            delays=ReconnectDelays(100),
            revocations=self.revocations,
        )
        hub = Hub(Ring(rounds_per_game=1, bytes_per_game=1), unsent_bytes=1)
        self.ender = Ender(hub, ReconnectDelays(100), linger_s=0.01)
        self.revoker = Revoker(self.admission)

    def open(self, key: Key = KEY, *, judged: bool = False, **grant: Any) -> tuple[RecordingLink, Held]:
        link = RecordingLink(ender=self.ender)
        granted = replace(Grant.of(key), **grant)
        use = ClientLimits(LimitSettings(private_links=0, address_links=0)).open(granted, CALLER.address)
        permit = Permit("websocket", granted, CALLER, use, self.admission.changes if judged else -1)
        held = Held(link, permit, session=None, games=frozenset({"crash"}))
        self.revoker.opened(held)
        return link, held

    async def settled(self) -> None:
        """Wait until everything that is due now, of few links, has been judged."""
        await until(lambda: not self.revoker._due)
        await asyncio.sleep(0)


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    rig = Rig()
    task = asyncio.create_task(rig.revoker.run())
    await asyncio.sleep(0)
    try:
        yield rig
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not rig.keys.watchers
        assert not rig.revocations.watchers


def ended(links: list[tuple[RecordingLink, Held]]) -> int:
    return sum(link.ended is not None for link, _ in links)


async def test_only_links_of_the_changed_key_are_judged() -> None:
    """However many others there are; and a key without links costs nothing."""
    async with running() as rig:
        others = [rig.open(OTHER) for _ in range(1000)]
        mine = [rig.open() for _ in range(10)]
        rig.admission.judged = 0
        rig.keys.change({KEY.id: replace(KEY, disabled=True), "without-links": replace(KEY, id="without-links")})
        await until(lambda: ended(mine) == 10)

        assert rig.admission.judged == 10
        assert ended(others) == 0
        assert [link.disconnects[0].reason for link, _ in mine] == [CloseReason.REVOKED] * 10


async def test_only_links_of_the_revoked_token_or_subject_are_judged() -> None:
    """All of the same key; a token may have opened several."""
    async with running() as rig:
        grants: list[dict[str, Any]] = [{"token_id": "1"}, {"token_id": "2"}, {"token_id": "3", "subject": "anna"}, {}]
        one, two, anna, none = ([rig.open(**grant) for _ in range(3)] for grant in grants)
        rig.admission.judged = 0
        rig.revocations.change([Revocation.of_token("1"), Revocation.of_subject("anna"), Revocation.of_token("9")])
        await until(lambda: ended(one) + ended(anna) == 6)

        assert rig.admission.judged == 6
        assert ended(two) + ended(none) == 0


@pytest.mark.parametrize("what", ["key", "secret"])
async def test_key_that_expires_in_the_turn_in_which_it_was_judged(what: str) -> None:
    """Nothing changes after the link was opened, and nothing expires any more; another secret was out of use before."""
    now = time.time()
    used, old = KEY.secrets[0], replace(stored(generate("private")[0]), expires_at=now - 1000)
    key = replace(KEY, expires_at=now) if what == "key" else replace(KEY, secrets=(replace(used, expires_at=now),))
    async with running() as rig:
        rig.keys.change({KEY.id: replace(key, secrets=(*key.secrets, old))})
        expired = [rig.open(key, judged=True, secret_id=used.id)]
        assert ended(expired) == 0
        await until(lambda: ended(expired) == 1, within_s=10)

        rig.keys.change({KEY.id: replace(KEY, secrets=(*KEY.secrets, old))})
        valid, _ = rig.open(judged=True, secret_id=used.id)
        await rig.settled()
        assert valid.ended is None


async def test_many_links_end_in_slices() -> None:
    """Other work of the loop comes in between; the links end in the order in which they were opened."""
    async with running() as rig:
        links = [rig.open() for _ in range(300)]
        rig.admission.takes_s = 0.0003  # slow, so that 300 take 90 ms
        rig.keys.change({KEY.id: replace(KEY, disabled=True)})
        counts = [0]
        while counts[-1] < 300:
            await asyncio.sleep(0)
            counts.append(ended(links))
            assert all(link.ended is not None for link, _ in links[: counts[-1]])

    assert len(set(counts)) > 3  # a slice has at most 20 ms, on a machine that is busy otherwise


async def test_many_keys_with_a_link_each_end_in_slices() -> None:
    """As when a store is replaced as a whole."""
    async with running() as rig:
        keys = [replace(KEY, id=f"k{number}") for number in range(300)]
        rig.keys.replace(keys)
        links = [rig.open(key) for key in keys]
        rig.admission.takes_s = 0.0003
        rig.keys.replace([])
        counts = [0]
        while counts[-1] < 300:
            await asyncio.sleep(0)
            counts.append(ended(links))

    assert len(set(counts)) > 3  # a slice has at most 20 ms, on a machine that is busy otherwise


async def test_key_that_changes_while_its_links_are_judged_is_judged_again() -> None:
    """The first change ends nothing; the second comes in between, and ends all."""
    async with running() as rig:
        links = [rig.open() for _ in range(100)]
        rig.admission.takes_s = 0.0001
        rig.keys.change({KEY.id: replace(KEY, name="renamed")})
        for _ in range(3):
            await asyncio.sleep(0)
        rig.admission.takes_s = 0
        rig.keys.change({KEY.id: replace(KEY, disabled=True)})

        await until(lambda: ended(links) == 100)


async def test_link_that_closes_before_it_is_judged() -> None:
    """It is not ended: its client has left."""
    async with running() as rig:
        (link, held), (other, _) = rig.open(), rig.open()
        rig.keys.change({KEY.id: replace(KEY, disabled=True)})
        rig.revoker.closed(held)
        await until(lambda: other.ended is not None)

        assert link.ended is None


async def test_link_that_has_an_end_keeps_it() -> None:
    """It was drained."""
    async with running() as rig:
        (link, _), (other, _) = rig.open(), rig.open()
        link.end(CloseReason.DRAINING)
        rig.keys.change({KEY.id: replace(KEY, disabled=True)})
        await until(lambda: other.ended is not None)

        assert [disconnect.reason for disconnect in link.disconnects] == [CloseReason.DRAINING]


async def test_link_that_cannot_be_judged_is_cut() -> None:
    """A bug in the judgement lets nobody stay; the other links are judged too."""
    async with running() as rig:
        links = [rig.open() for _ in range(3)]
        rig.admission.fails = True
        rig.keys.change({KEY.id: replace(KEY, name="renamed")})

        await until(lambda: ended(links) == 3)
        assert {link.ended.reason for link, _ in links if link.ended is not None} == {CloseReason.FAILED}


async def test_link_whose_key_changed_before_it_is_registered() -> None:
    """It ends at once."""
    async with running() as rig:
        rig.keys.change({KEY.id: None})
        link, _ = rig.open()

        assert link.ended is not None
        assert link.ended.reason is CloseReason.REVOKED


@pytest.mark.parametrize(
    "expiring",
    [
        lambda at: replace(KEY, expires_at=at),
        lambda at: replace(KEY, secrets=(replace(KEY.secrets[0], expires_at=at),)),
    ],
    ids=["key", "secret"],
)
async def test_clock_that_is_set_past_an_expiry_ends_links(
    monkeypatch: pytest.MonkeyPatch, expiring: Callable[[float], Key]
) -> None:
    """An hour early by the loop's clock. Set back before it, the clock ends none."""
    now = time.time
    async with running() as rig:
        key = expiring(now() + 3600)
        rig.keys.change({KEY.id: key})
        link, _ = rig.open(key, secret_id=key.secrets[0].id)
        monkeypatch.setattr(time, "time", lambda: now() - 3600)
        rig.keys.change({KEY.id: replace(key, name="renamed")})
        await rig.settled()
        assert link.ended is None
        monkeypatch.setattr(time, "time", lambda: now() + 3601)

        await until(lambda: link.ended is not None, within_s=5)


async def test_key_that_gets_an_expiry_while_its_links_are_open() -> None:
    """Nothing expired before: the wait had no end."""
    async with running() as rig:
        link, _ = rig.open()
        await rig.settled()
        rig.keys.change({KEY.id: replace(KEY, expires_at=time.time() + 0.05)})

        await until(lambda: link.ended is not None, within_s=5)


async def test_narrower_key_narrows_the_permit() -> None:
    """What the client asks for from now on."""
    async with running() as rig:
        _, held = rig.open()
        rig.keys.change({KEY.id: replace(KEY, games=frozenset({"crash", "dice"}))})

        await rig.settled()
        assert held.permit.grant.games == frozenset({"crash", "dice"})


async def test_index_forgets_links_that_close() -> None:
    """In any order, by each of their holders."""
    held_links, rig = HeldLinks(), Rig()
    opened = [rig.open(token_id=str(number % 3), subject="anna")[1] for number in range(9)]
    for held in opened:
        held_links.add(held)
    assert [len(held_links.of(Revocable("token", word))) for word in "0123"] == [3, 3, 3, 0]
    for held in opened[::2] + opened[1::2]:
        assert Revocable("key", KEY.id) in held_links
        held_links.remove(held)

    assert Revocable("key", KEY.id) not in held_links
    assert not held_links._found
