"""What a client reports to its user while no relay answers, with a clock of the test."""

from relay.commands.client.outage import Outage


class Reports:
    """An outage with its clock, and the sentences that it reported."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.sentences: list[str] = []
        self.outage = Outage(self.sentences.append, clock=lambda: self.now_s)

    def fails_every_s(self, seconds: float, *, until_s: float, sentence: str = "lost") -> None:
        while self.now_s + seconds <= until_s:
            self.now_s += seconds
            self.outage.report(sentence)


def test_same_failure_is_reported_once() -> None:
    """Further attempts that fail in the same way report nothing."""
    reports = Reports()
    reports.fails_every_s(5, until_s=150)

    assert reports.sentences == ["lost"]


def test_each_of_several_failures_is_reported_once() -> None:
    """Two alternating failures, such as of two relays behind one name, do not fill the screen."""
    reports = Reports()
    for sentence in ("refused", "reset", "refused", "reset"):
        reports.outage.report(sentence)

    assert reports.sentences == ["refused", "reset"]


def test_reminders_come_at_growing_intervals() -> None:
    """Reminders come after one, two, four minutes and so on: about ten lines in a night."""
    reports = Reports()
    reports.outage.report("lost")
    reports.fails_every_s(5, until_s=100 + 10 * 60)
    reports.fails_every_s(5, until_s=100 + 9 * 3600)

    assert reports.sentences[:5] == [
        "lost",
        "no connection for 1 min; still trying",
        "no connection for 2 min; still trying",
        "no connection for 4 min; still trying",
        "no connection for 8 min; still trying",
    ]
    assert reports.sentences[-1] == "no connection for 8 h 32 min; still trying"
    assert len(reports.sentences) == 11


def test_long_attempt_causes_one_reminder() -> None:
    """Several reminders that became due during one attempt are reported as one."""
    reports = Reports()
    for reports.now_s in (0, 1000, 1001, 1002):
        reports.outage.report("timed out")

    assert reports.sentences == ["timed out", "no connection for 17 min; still trying"]


def test_connection_ends_the_outage_and_is_reported() -> None:
    """The next failure is a new outage with its own clock; a connection without an outage is not reported."""
    reports = Reports()
    reports.outage.end()
    reports.outage.report("lost")
    reports.now_s += 42
    reports.outage.end()
    reports.outage.end()
    reports.now_s += 3600
    reports.outage.report("lost")
    reports.now_s += 0.1
    reports.outage.end()

    assert reports.sentences == ["lost", "connected, after 42 s", "lost", "connected, after 1 s"]
