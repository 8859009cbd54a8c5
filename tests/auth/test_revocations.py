"""Revocations in force: which tokens they refuse, for how long, and how many are kept."""

import time
from typing import Final

import pytest

from auth.grants import Grant
from auth.revocations import KEPT_S, Revocation, Revocations

NOW: Final = time.time()


def token(token_id: str | None = None, subject: str | None = None, issued_at: float | None = NOW) -> Grant:
    return Grant("k", "private", None, frozenset(), token_id=token_id, subject=subject, issued_at=issued_at)


def test_token_is_refused_by_its_id() -> None:
    """Until the revocation expires; then no token and no link of it exists any more."""
    revocations = Revocations([Revocation.of_token("t", now=NOW)])

    assert revocations.refuses(token("t"), now=NOW)
    assert revocations.refuses(token("t"), now=NOW + KEPT_S - 1)
    assert not revocations.refuses(token("t"), now=NOW + KEPT_S)
    assert not revocations.refuses(token("u"), now=NOW)


def test_subject_is_refused_for_all_its_tokens() -> None:
    """A token without a subject, and one whose id is that name, are not meant."""
    revocations = Revocations([Revocation.of_subject("anna", now=NOW)])

    assert revocations.refuses(token(subject="anna", issued_at=NOW + 60), now=NOW)
    assert not revocations.refuses(token(subject="berta"), now=NOW)
    assert not revocations.refuses(token("anna"), now=NOW)


@pytest.mark.parametrize(
    ("issued_at", "refused"),
    [(NOW - 1, True), (NOW, False), (NOW + 1, False), (None, True)],
    ids=["before", "at", "after", "unknown"],  # times differ between the workers of a test run
)
def test_subject_is_refused_for_tokens_issued_before(issued_at: float | None, refused: bool) -> None:
    """A token whose time of issue is not known is refused."""
    revocations = Revocations([Revocation.of_issued("anna", now=NOW)])

    assert revocations.refuses(token(subject="anna", issued_at=issued_at), now=NOW) is refused


def test_later_revocation_of_a_value_replaces_the_earlier_one() -> None:
    """One that has expired takes it back."""
    revocations = Revocations([Revocation.of_subject("anna")])
    revocations.change([Revocation.of_issued("anna", now=NOW)])
    assert not revocations.refuses(token(subject="anna", issued_at=NOW), now=NOW)
    revocations.change([Revocation.of_subject("anna", for_s=0)])

    assert not revocations.refuses(token(subject="anna", issued_at=0), now=NOW)
    assert len(revocations) == 0


def test_contents_of_a_store_replace_what_was_known() -> None:
    """What the store does not hold any more is dropped; watchers get only what is new or different."""
    seen: list[tuple[Revocation, ...]] = []
    one, two, three = (Revocation.of_token(name, now=NOW) for name in "abc")
    revocations = Revocations([one, two])
    revocations.watchers.append(seen.append)
    revocations.replace([two, three])
    revocations.replace([three, two])

    assert seen == [(three,)]
    assert [revocations.refuses(token(name), now=NOW) for name in "abc"] == [False, True, True]


def test_expired_revocations_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the next change. One that came already expired is not taken."""
    clock = [NOW]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    revocations = Revocations(Revocation("token", str(number), NOW + number) for number in range(1, 1001))
    assert len(revocations) == 1000
    clock[0] = NOW + 999
    revocations.change([Revocation("token", "late", NOW + 998), Revocation("token", "new", NOW + 2000)])

    assert len(revocations) == 2
    assert not revocations.refuses(token("late"))


def test_value_that_is_revoked_again_and_again_takes_no_more_memory() -> None:
    """As a script may do that prolongs a revocation each second."""
    revocations = Revocations()
    for number in range(10_000):
        revocations.change([Revocation("subject", "anna", NOW + 1000 + number)])

    assert len(revocations) == 1
    assert len(revocations._ends) < 100
