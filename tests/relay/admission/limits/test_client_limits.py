"""Who shares which limit, without a relay around it."""

from dataclasses import replace

import pytest

from auth.grants import Grant
from auth.key import Limits
from relay.admission.limits.limits import ClientLimits
from relay.admission.limits.link_limits import FRESH, Opening
from relay.config.sections import LimitSettings
from relay.errors import TooManyRequests

PRIVATE = Grant("k", "private", None, frozenset())
PUBLIC = Grant("p", "public", None, frozenset({"*"}))


def limits_of(**settings: object) -> ClientLimits:
    return ClientLimits(LimitSettings.model_validate(settings), clock=lambda: 0.0)


def test_viewers_of_a_page_have_messages_replays_and_reads_of_their_own() -> None:
    """One viewer who uses all of them does not keep out the others; servers with one private key share them."""
    limits = limits_of(subscribes_per_min=1, replays=1, log_rounds_per_min=10)
    cold = Opening(reads_log=lambda: True)
    for grant, is_apart in ((PUBLIC, True), (PRIVATE, False)):
        first = limits.open(grant, "192.0.2.1", cold)
        first.subscribe()
        first.begin_replay()
        limits.log_meter(grant, "192.0.2.1").charge(100)
        with pytest.raises(TooManyRequests):
            first.subscribe()
        with pytest.raises(TooManyRequests):
            limits.open(grant, "192.0.2.1", cold)

        assert (limits.log_meter(grant, "192.0.2.2").delay_s() == 0) is is_apart
        other = limits.open(grant, "192.0.2.2")
        if is_apart:
            other.subscribe()
            limits.open(grant, "192.0.2.2", cold)
        else:
            with pytest.raises(TooManyRequests):
                other.subscribe()
        first.close()
        assert not limits.of_links.replays[(grant.key_id, "192.0.2.1") if is_apart else grant.key_id]


def test_reads_are_paid_after_they_were_made() -> None:
    """What was read over the limit is regained first; the refusal says when."""
    meter = limits_of(log_rounds_per_min=60).log_meter(PRIVATE, "")
    meter.charge(59)
    assert meter.delay_s() == 0
    meter.charge(31)

    assert meter.delay_s() == 31
    assert meter.refusal(31).retry_ms == 31_000


def test_identities_of_one_provider_have_limits_of_their_own() -> None:
    """Each has those that its grant came with."""
    limits = limits_of()
    one, other = (
        Grant(f"identity/{name}", "private", None, frozenset(), Limits(requests_per_min=1), subject=name)
        for name in ("a", "b")
    )
    for grant in (one, other):
        limits.request(grant, "")
        with pytest.raises(TooManyRequests):
            limits.request(grant, "")


def test_one_address_leaves_links_of_a_public_key_to_others() -> None:
    """Nine tenths of them at most, also with cursors; a private key's are all for one."""
    limits = limits_of(public_links=100, private_links=100)

    def opened(grant: Grant, address: str, opening: Opening = FRESH) -> int:
        for count in range(200):
            try:
                limits.open(grant, address, opening)
            except TooManyRequests:
                return count
        return 200

    assert opened(PUBLIC, "192.0.2.1") == 90
    assert opened(PUBLIC, "192.0.2.1", Opening(resumes=True)) == 0
    assert opened(PUBLIC, "192.0.2.2") >= 1
    assert opened(PRIVATE, "192.0.2.1") == 100


def test_a_small_number_of_links_is_for_anybody() -> None:
    """There is no tenth of it."""
    limits = limits_of(public_links=3)
    for _ in range(3):
        limits.open(PUBLIC, "192.0.2.1")
    with pytest.raises(TooManyRequests):
        limits.open(PUBLIC, "192.0.2.1")


@pytest.mark.parametrize("grant", [PRIVATE, PUBLIC], ids=["private", "public"])
def test_subjects_of_a_key_share_its_limits(grant: Grant) -> None:
    """Who has a key chooses the subjects of its tokens: they make no limit larger."""
    limits = limits_of(
        private_links=2, public_links=2, private_requests_per_min=2, public_requests_per_min=2, subscribes_per_min=2
    )
    one, other, third = (replace(grant, subject=name) for name in ("a", "b", "c"))

    uses = [limits.open(each, "192.0.2.1") for each in (one, other)]
    with pytest.raises(TooManyRequests):
        limits.open(third, "192.0.2.1")
    for each in uses:
        each.subscribe()
    with pytest.raises(TooManyRequests):
        uses[0].subscribe()
    limits.request(one, "192.0.2.1")
    limits.request(other, "192.0.2.1")
    with pytest.raises(TooManyRequests):
        limits.request(third, "192.0.2.1")


def test_limits_of_a_key_count_for_tokens_with_a_subject_as_they_are_now() -> None:
    """Not as they were when the token was made."""
    limits = ClientLimits(LimitSettings(), own_limits=lambda _key_id: Limits(links=1))
    limits.open(replace(PRIVATE, subject="a"), "")
    with pytest.raises(TooManyRequests):
        limits.open(replace(PRIVATE, subject="a"), "")


@pytest.mark.parametrize("number", [5e-324, 1e-12, 0.001, 1, 1e308, 10**400])
def test_any_number_is_a_limit(number: float) -> None:
    """Files and claims of identities may have extreme ones; whole numbers where none else is allowed."""
    whole = max(1, int(number))
    own = Limits(requests_per_min=whole, links=whole, links_per_s=number, replays=whole, log_rounds_per_min=whole)
    limits = limits_of()
    grant = replace(PRIVATE, limits=own)
    shown = [limits.request(grant, ""), limits.open(grant, "", Opening(reads_log=lambda: True)).quota]
    limits.log_meter(grant, "").charge(1)

    for quota in shown:
        assert quota is not None
        assert len(str(quota.limit)) < 20
        assert len(str(quota.reset_s)) < 20


def test_links_that_were_closed_leave_nothing_behind() -> None:
    """Tables of open links have no entry for keys and addresses that hold none."""
    limits = limits_of()
    for number in range(100):
        for kind in ("private", "public"):
            limits.open(Grant(f"k{number}", kind, None, frozenset()), f"10.0.0.{number}").close()

    assert not limits.of_links.links
    assert not limits.of_links._by_network
    assert not limits.of_links._by_viewer
    assert not limits.of_links._filters
