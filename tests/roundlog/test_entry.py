"""Pages of the log: joined and cut, each message stays where it is."""

from hypothesis import given
from hypothesis import strategies as st

from roundlog.entry import LogEntry, Page, joined, shortened


def page_of(kinds: str, begin: int, remaining: int) -> Page:
    """Make a page of consecutive messages: ``r`` for a round, ``o`` for another message, ``-`` where none is."""
    page = Page([], 0)
    for sequence, kind in enumerate(kinds, begin):
        if kind == "r":
            page = joined(page, Page([LogEntry(sequence, "crash", b"")], 0))
        elif kind == "o":
            page = joined(page, Page([], 0, [(sequence, sequence)]))
    return page._replace(remaining=remaining)


def kinds_of(page: Page, begin: int, end: int) -> str:
    rounds = {entry.sequence for entry in page.entries}
    others = {sequence for first, last in page.others for sequence in range(first, last + 1)}
    assert not rounds & others
    return "".join("r" if at in rounds else "o" if at in others else "-" for at in range(begin, end))


@given(st.text("ro-", max_size=30), st.text("ro-", max_size=30))
def test_joined_pages_have_the_messages_of_both(first: str, second: str) -> None:
    """Each at its sequence; runs of other messages that meet are one."""
    page = joined(page_of(first, 1, 7), page_of(second, 1 + len(first), 3))

    assert kinds_of(page, 1, 1 + len(first) + len(second)) == first + second
    assert page.remaining == 3
    assert page.last == len((first + second).rstrip("-"))
    assert all(before[1] + 1 < after[0] for before, after in zip(page.others, page.others[1:], strict=False))


@given(st.text("ro-", max_size=30).filter(lambda kinds: kinds.count("r") > 1), st.data())
def test_shortened_page_ends_with_a_round(kinds: str, data: st.DataObject) -> None:
    """What follows its last round is read again."""
    limit = data.draw(st.integers(1, kinds.count("r") - 1))
    page = shortened(page_of(kinds, 1, 5), limit)

    assert len(page.entries) == limit
    assert kinds_of(page, 1, page.last + 1) == kinds[: page.last]
    assert page.remaining == 5 + kinds.count("r") - limit
