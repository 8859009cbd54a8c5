"""When keys expire: one list, by a clock that may be set."""

from relay.links.expiries import Expiries


def test_earliest_expiry_is_waited_for() -> None:
    """At most a quarter of a second at a time, since the clock may be set; without any, forever."""
    expiries = Expiries()
    assert expiries.wait_s(0.0) is None
    expiries.put("late", 100.0)
    expiries.put("early", 10.0)

    assert expiries.wait_s(0.0) == 0.25
    assert expiries.wait_s(9.9) is not None
    assert expiries.due(9.99) == []
    assert expiries.wait_s(9.99) is not None
    assert 0 < (expiries.wait_s(9.99) or 0) < 0.02
    assert expiries.wait_s(12.0) == 0.0
    assert expiries.due(10.0) == ["early"]


def test_clock_that_jumps_brings_what_it_passed() -> None:
    """In the order of their expiry; a clock that is set back delays the others."""
    expiries = Expiries()
    for number in (3, 1, 2, 5):
        expiries.put(f"k{number}", float(number))

    assert expiries.due(4.0) == ["k1", "k2", "k3"]
    assert expiries.due(0.0) == []
    assert expiries.due(4.5) == []
    assert expiries.due(5.0) == ["k5"]
    assert expiries.wait_s(5.0) is None


def test_expiry_that_is_changed_counts_once() -> None:
    """Prolonged, shortened and removed."""
    expiries = Expiries()
    for key_id, moments in {"prolonged": (1.0, 9.0), "shortened": (9.0, 2.0), "removed": (1.0, None)}.items():
        for at in moments:
            expiries.put(key_id, at)

    assert expiries.due(5.0) == ["shortened"]
    assert expiries.due(10.0) == ["prolonged"]
    assert expiries.wait_s(0.0) is None


def test_key_that_is_prolonged_again_and_again_takes_no_more_memory() -> None:
    """As a script may do each second."""
    expiries = Expiries()
    for number in range(10_000):
        expiries.put("k", 1000.0 + number)

    assert len(expiries._heap) < 100
    assert expiries.due(20_000.0) == ["k"]


def test_removed_and_put_again_is_due_once() -> None:
    """The heap still holds the first entry."""
    expiries = Expiries()
    expiries.put("k", 5.0)
    expiries.put("k", None)
    expiries.put("k", 5.0)

    assert expiries.due(5.0) == ["k"]
