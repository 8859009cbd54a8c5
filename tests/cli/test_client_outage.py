"""What a user is told while a client waits for a relay, by a clock of the test's own."""

from relay.commands.client.outage import Outage


class Told:
    """An outage, what was said of it, and its clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.said: list[str] = []
        self.outage = Outage(self.said.append, clock=lambda: self.now_s)

    def fails_every_s(self, seconds: float, *, until_s: float, sentence: str = "lost") -> None:
        while self.now_s + seconds <= until_s:
            self.now_s += seconds
            self.outage.report(sentence)


def test_same_failure_is_told_once() -> None:
    """However often it is met."""
    told = Told()
    told.fails_every_s(5, until_s=150)

    assert told.said == ["lost"]


def test_another_failure_is_told_too_and_each_of_them_once() -> None:
    """Two that take turns, such as two relays behind one name, do not fill a screen either."""
    told = Told()
    for sentence in ("refused", "reset", "refused", "reset"):
        told.outage.report(sentence)

    assert told.said == ["refused", "reset"]


def test_waiting_is_told_less_and_less_often() -> None:
    """After a minute, two, four: over a night, a dozen lines."""
    told = Told()
    told.outage.report("lost")
    told.fails_every_s(5, until_s=100 + 10 * 60)
    told.fails_every_s(5, until_s=100 + 9 * 3600)

    assert told.said[:5] == [
        "lost",
        "no connection for 1 min; still trying",
        "no connection for 2 min; still trying",
        "no connection for 4 min; still trying",
        "no connection for 8 min; still trying",
    ]
    assert told.said[-1] == "no connection for 8 h 32 min; still trying"
    assert len(told.said) == 11


def test_attempts_that_hang_are_told_of_once_each() -> None:
    """Reminders that fell into one long attempt are not made up for."""
    told = Told()
    for told.now_s in (0, 1000, 1001, 1002):
        told.outage.report("timed out")

    assert told.said == ["timed out", "no connection for 17 min; still trying"]


def test_connection_is_told_and_what_follows_is_another_outage() -> None:
    """Told anew, with a clock of its own; a connection that nobody missed is not worth a word."""
    told = Told()
    told.outage.end()
    told.outage.report("lost")
    told.now_s += 42
    told.outage.end()
    told.outage.end()
    told.now_s += 3600
    told.outage.report("lost")
    told.now_s += 0.1
    told.outage.end()

    assert told.said == ["lost", "connected, after 42 s", "lost", "connected, after 1 s"]
