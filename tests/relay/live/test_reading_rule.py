"""When rounds wait for one that is watched: where that saves wake-ups, and not for a moment only."""

from relay.live.following.reading_rule import ReadingRule


def reads(rule: ReadingRule, *, per_s: int, watched_of: int, seconds: float = 1.0) -> bool:
    """Count evenly spread reads, every `watched_of`-th of them with a round that is watched; 0: none is."""
    count = round(per_s * seconds)
    answers = [
        rule.is_worth_waiting(100 + number / per_s, is_watched=bool(watched_of) and number % watched_of == 0)
        for number in range(count)
    ]
    return any(answers)


def test_one_watched_game_of_many_is_worth_it_within_a_tenth_of_a_second() -> None:
    assert reads(ReadingRule(), per_s=1000, watched_of=14, seconds=0.1)


def test_games_that_nobody_watches_are_worth_it() -> None:
    """REST alone is used, or a link follows a quiet game."""
    assert reads(ReadingRule(), per_s=100, watched_of=0)


def test_few_rounds_are_read_as_they_come() -> None:
    """At the pace of 14 real games there is nothing to save, however long it lasts."""
    assert not reads(ReadingRule(), per_s=30, watched_of=14, seconds=60)


def test_a_log_of_which_much_is_watched_is_read_as_it_comes() -> None:
    assert not reads(ReadingRule(), per_s=1000, watched_of=2, seconds=5)
    assert not reads(ReadingRule(), per_s=1000, watched_of=1, seconds=5)


def waits_on(rule: ReadingRule, *, rounds_per_s: int, wakeups_per_s: int) -> bool:
    """Whether it still waits after ten seconds of such traffic."""
    rule.begin(100.0)
    for second in range(101, 111):
        rule.count(rounds=rounds_per_s)
        for _ in range(wakeups_per_s):
            rule.count(wakeups=1)
        if not rule.is_still_worth_it(float(second)):
            return False
    return True


def test_rounds_keep_waiting_until_it_costs_more() -> None:
    """It ends at half the traffic at which it begins: traffic near a bound does not change it again and again."""
    rule = ReadingRule()
    assert waits_on(rule, rounds_per_s=1000, wakeups_per_s=71)
    assert waits_on(rule, rounds_per_s=30, wakeups_per_s=2)
    assert not waits_on(rule, rounds_per_s=10, wakeups_per_s=1)
    assert not waits_on(rule, rounds_per_s=1000, wakeups_per_s=600)
