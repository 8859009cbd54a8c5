"""Several stores in one ring: precedence, faults, and stores that are away."""

import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from auth.key import Key
from auth.key_ring import KeyRing
from auth.revocations import Revocation
from auth.stores.key_layers import KeyLayer, KeyLayers
from auth.stores.key_store import Contents, StoreUnavailable
from tests.auth.stores.making import new_key

ONE, TWO = new_key("one"), new_key("two")


class Taken:
    """Takes revocations."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def replace(self, revocations: object) -> None:
        self.calls.append(("replace", revocations))

    def change(self, revocations: object) -> None:
        self.calls.append(("change", revocations))


def two_layers() -> tuple[KeyRing, KeyLayers, KeyLayer, KeyLayer]:
    ring = KeyRing()
    layers = KeyLayers(ring)
    return ring, layers, layers.add("env"), layers.add("nats", stale_s=60)


def test_keys_of_all_stores_are_in_force() -> None:
    """And leave with their store's change."""
    ring, _, env, nats = two_layers()
    env.replace(Contents((ONE,)))
    nats.replace(Contents((TWO,)))
    assert set(ring) == {ONE, TWO}

    nats.change({"two": None})
    assert set(ring) == {ONE}


def test_earlier_store_hides_a_key_of_a_later_one() -> None:
    """The later one is reported, and is in force once the earlier one is gone."""
    ring, _, env, nats = two_layers()
    other = new_key("one")
    env.replace(Contents((ONE,)))
    nats.replace(Contents((other,)))
    assert ring.get("one") is ONE
    assert "env has a key of this id" in nats.faults["one"]

    env.replace(Contents())
    assert ring.get("one") is other
    assert nats.faults == {}


def test_faults_are_those_of_the_newest_contents() -> None:
    """A corrected entry has none; others keep theirs, and each is logged once."""
    _, layers, _, nats = two_layers()
    layers.find_fault = lambda key: f"key {key.id!r} is odd" if key.name == "odd" else None
    odd = replace(ONE, name="odd")
    with capture_logs() as lines:
        nats.replace(Contents((odd,), faults={"bad": "key 'bad' is broken"}))
        nats.replace(Contents((odd,), faults={"bad": "key 'bad' is broken"}))
        nats.change({"worse": None}, faults={"worse": "key 'worse' is broken"})
        assert sorted(nats.faults) == ["bad", "one", "worse"]
        nats.change({"bad": TWO, "one": ONE})
        assert sorted(nats.faults) == ["worse"]
        nats.replace(Contents((ONE,)))
    assert nats.faults == {}
    assert [line["error"] for line in lines] == ["key 'bad' is broken", "key 'one' is odd", "key 'worse' is broken"]


def test_thousand_faults_are_few_lines() -> None:
    """The metric has their number."""
    _, _, _, nats = two_layers()
    with capture_logs() as lines:
        nats.replace(Contents(faults={f"key{number}": f"{number}" for number in range(1000)}))
    assert len(lines) == 21
    assert lines[-1]["left_out"] == 980


def test_revocations_are_handed_on() -> None:
    """As a whole, then each new one."""
    taken = Taken()
    layer = KeyLayers(KeyRing()).add("nats", stale_s=60, revocations=taken)
    revocation = Revocation("token", "x", time.time() + 9)

    layer.replace(Contents(revocations=(revocation,)))
    layer.change({}, [revocation])

    assert taken.calls == [("replace", (revocation,)), ("change", [revocation])]


def test_store_that_was_not_read_yet_blocks_what_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of another store are judged meanwhile."""
    _, layers, env, nats = two_layers()
    env.replace(Contents((ONE,)))
    nats.lost(StoreUnavailable("NATS is away"))

    assert layers.blocked_by("one") is None
    assert layers.blocked_by("two") is nats
    assert layers.blocked_by() is nats
    assert nats.sentence == "key store nats: NATS is away"

    nats.replace(Contents((TWO,)))
    nats.reached()
    assert layers.blocked_by() is None


def test_store_that_is_away_is_used_for_the_stated_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its keys are blocked, until it is reached again. Each outage is one line."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    _, layers, env, nats = two_layers()
    env.replace(Contents((ONE,)))
    with capture_logs() as lines:
        nats.replace(Contents((TWO,)))
        nats.reached()
        nats.lost(StoreUnavailable("NATS is away"))
        nats.lost(StoreUnavailable("NATS is away"))
        now += 60
        assert layers.blocked_by("two") is None
        now += 0.1
        assert layers.blocked_by("two") is nats
        assert layers.blocked_by("one") is None
        assert "was reached 60 s ago, at most 60 s are allowed: NATS is away" in nats.sentence
        nats.reached()
        assert layers.blocked_by() is None
    assert [line["event"] for line in lines] == ["key_store_reached", "key_store_lost", "key_store_reached"]


def test_silent_store_counts_as_away() -> None:
    """One whose follower does not say anything any more, whatever the reason."""
    layer = KeyLayers(KeyRing()).add("nats", stale_s=0.0)
    layer.replace(Contents((Key("x", "private"),)))
    layer.reached()

    assert layer.error is None
    assert not layer.is_usable
