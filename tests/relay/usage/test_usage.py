"""What keys use is counted once per write of a channel, and merged over relays and hours."""

from hypothesis import given
from hypothesis import strategies as st

from relay.usage.account import OTHERS, Account, Accounts
from relay.usage.tally import Tally
from relay.usage.usage_form import KeyUsage, UsageReport, hour_of, merged, report_subject, total

_STEPS = st.lists(st.tuples(st.sampled_from(["join", "leave", "write", "settle"]), st.integers(0, 2)), max_size=60)


@given(_STEPS)
def test_each_account_gets_what_its_links_were_sent(steps: list[tuple[str, int]]) -> None:
    """As if each write had been counted for each link, in any order of links, writes and settlements."""
    tally, accounts = Tally(), [Account(str(number)) for number in range(3)]
    links, expected = [0, 0, 0], [0, 0, 0]
    for step, who in steps:
        if step == "join":
            tally.join(accounts[who])
            links[who] += 1
        elif step == "leave" and links[who]:
            tally.leave(accounts[who])
            links[who] -= 1
        elif step == "write":
            tally.rounds += who
            tally.bytes += 10 * who
            expected = [sum_ + who * count for sum_, count in zip(expected, links, strict=True)]
        elif step == "settle":
            tally.settle()
    tally.settle()

    assert [account.rounds for account in accounts] == expected
    assert [account.bytes for account in accounts] == [10 * rounds for rounds in expected]


def test_link_without_an_account_is_not_counted() -> None:
    """Links of tests, and of a relay that counts nothing."""
    tally = Tally()
    tally.join(None)
    tally.leave(None)

    assert tally.settle() == 0


def test_request_that_opens_a_link_is_a_link() -> None:
    """Requests and links are counted apart."""
    account = Account("a")
    for _ in range(3):
        account.accepted()
    account.opened()
    account.opened()
    account.closed()

    figures = account.figures()
    assert (figures.requests, figures.links, figures.links_max, figures.links_opened) == (1, 1, 2, 2)


def test_accounts_are_bounded() -> None:
    """More identities than that share an account."""
    accounts = Accounts(most=2)
    for key_id in ("a", "b", "c", "d", "a"):
        accounts.of(key_id).accepted()

    assert {key: usage.requests for key, usage in accounts.figures().items()} == {"a": 2, "b": 1, OTHERS: 2}


def test_identities_take_no_account_from_a_key() -> None:
    """They may be very many: half of the accounts are for keys."""
    accounts = Accounts(most=5)
    for key_id in ("identity/a", "identity/b", "identity/c", "k", "l"):
        accounts.of(key_id).accepted()

    assert set(accounts.figures()) == {"identity/a", "identity/b", OTHERS, "k", "l"}


def test_figures_of_relays_are_added_and_stale_links_are_closed() -> None:
    """Two relays and two hours; a relay that has not reported for a while holds no links any more."""
    hour = 1_800_000_000 // 3600 * 3600
    used = KeyUsage(links=2, links_max=3, rounds=10, last_used=hour + 5.0)
    reports = [
        UsageReport(hour - 3600, "r1", hour - 1.0, {"k": used}),
        UsageReport(hour, "r1", hour + 60.0, {"k": used}),
        UsageReport(hour, "r2", hour + 59.0, {"k": KeyUsage(links=1, links_max=1, rounds=5, last_used=hour + 9.0)}),
        UsageReport(hour, "r3", hour + 1.0, {"k": KeyUsage(links=7, links_max=7)}),
    ]

    hours = merged(reports, now=hour + 61.0, fresh_s=45)["k"]

    assert hours[hour] == KeyUsage(links=3, links_max=11, rounds=15, last_used=hour + 9.0)
    assert total(hours) == KeyUsage(links=3, links_max=11, rounds=25, last_used=hour + 9.0)


def test_report_replaces_the_one_before_it() -> None:
    """One subject for each relay, hour and part."""
    report = UsageReport(hour_of(1_800_000_000.5), "0badcafe", 0.0, {})

    assert report_subject(report, 0) == "usage.20270115.08.0badcafe.0"
