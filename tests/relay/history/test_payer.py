"""Who pays for reads of the log: one payer for a key, or for a key and an address, with one limit."""

import asyncio
import gc
from dataclasses import replace

import pytest

from auth.grants import Grant
from relay.history.reading import payer as module
from relay.history.reading.payer import OTHERS, Payer, Payers
from tests.waiting import until

PRIVATE = Grant("server", "private", None, frozenset())
PUBLIC = Grant("page", "public", None, frozenset({"*"}))


class Over(Exception):
    """The limit is reached."""


class Bucket:
    """A limit that a test opens and closes."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.charged = 0
        self.closed_s = delay_s
        self.asked = 0

    def charge(self, rounds: int) -> None:
        self.charged += rounds

    def delay_s(self) -> float:
        self.asked += 1
        return self.closed_s

    def refusal(self, delay_s: float) -> Exception:
        return Over(delay_s)


def test_private_key_is_one_payer_and_public_key_one_for_each_address() -> None:
    """All viewers of a page have its public key: one of them must not use up the others' turns."""
    payers = Payers()
    private, public = payers.of(PRIVATE, "192.0.2.1"), payers.of(PUBLIC, "192.0.2.1")

    assert payers.of(PRIVATE, "192.0.2.2") is private
    assert payers.of(PUBLIC, "192.0.2.1") is public
    assert payers.of(PUBLIC, "192.0.2.2") is not public
    assert (public.key_id, public.address) == ("page", "192.0.2.1")
    assert (private.key_id, private.address) == ("server", "")


def test_identities_that_share_a_key_are_payers_of_their_own() -> None:
    """Tokens of the operator's own identity provider all have one key: one user must not use up the others' turns."""
    payers, alice = Payers(), replace(PRIVATE, subject="alice")
    payer = payers.of(alice, "192.0.2.1")

    assert payers.of(alice, "192.0.2.2") is payer
    assert payers.of(replace(PRIVATE, subject="bob"), "192.0.2.1") is not payer
    assert payers.of(PRIVATE, "192.0.2.1") is not payer
    assert payer.key_id == "server"


def test_payers_are_forgotten_when_unused_and_their_reads_are_not() -> None:
    """Addresses are many: memory is bounded by what is open. What keys have read is for the operator."""
    payers = Payers()
    for number in range(1000):
        payers.of(PUBLIC, f"2001:db8::{number:x}").charge(2)
    held = payers.of(PRIVATE, "192.0.2.1")
    held.charge(500)
    gc.collect()

    assert len(payers) == 1
    assert dict(payers.reads()) == {"page": 2000, "server": 500}


def test_keys_that_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that come later are counted together: nothing that was read is missing in the sum."""
    monkeypatch.setattr(module, "_MOST_KEYS", 2)
    payers = Payers()
    for key_id in ("a", "b", "c", "d", "a"):
        payers.of(Grant(key_id, "private", None, frozenset()), "").charge(10)

    assert dict(payers.reads()) == {"a": 20, "b": 10, OTHERS: 20}


def test_limit_is_asked_for_once_by_key_or_key_and_address() -> None:
    """The limit decides what it counts together; what is read is charged to it."""
    asked = list[tuple[str, str]]()
    bucket = Bucket()

    def meter_of(grant: Grant, address: str) -> Bucket:
        asked.append((grant.key_id, address))
        return bucket

    payers = Payers(meter_of)
    held = [payers.of(PRIVATE, "192.0.2.1"), payers.of(PRIVATE, "192.0.2.9"), payers.of(PUBLIC, "192.0.2.1")]
    for payer in held:
        payer.charge(100)
        payer.charge(0)

    assert asked == [("server", ""), ("page", "192.0.2.1")]
    assert bucket.charged == 300


def test_request_over_the_limit_is_refused_by_the_limit() -> None:
    """Its error has the delay and the status."""
    payer = Payer("server", meter=(bucket := Bucket()))
    payer.check()
    bucket.closed_s = 2.5

    assert not payer.may_read
    with pytest.raises(Over, match=r"2\.5"):
        payer.check()


async def test_replay_over_the_limit_waits_until_it_is_within() -> None:
    """It asks again after the delay that it was given, and leaves at once when it is cancelled."""
    payer = Payer("server", meter=(bucket := Bucket(0.001)))
    waiting = asyncio.create_task(payer.until_it_may_read())
    await until(lambda: bucket.asked > 2)
    assert not waiting.done()
    bucket.closed_s = 0.0
    await waiting

    bucket.closed_s = 1000.0
    waiting = asyncio.create_task(payer.until_it_may_read())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_replay_over_the_limit_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that never opens, by a wrong clock or setting, makes replays slow, and does not stop them."""
    monkeypatch.setattr(module, "_MOST_WAIT_S", 0.002)
    payer = Payer("server", meter=(bucket := Bucket(0.001)))

    async with asyncio.timeout(10):
        await payer.until_it_may_read()

    assert bucket.asked == 2
