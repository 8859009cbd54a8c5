"""Admission: links of different protocols take different shares of one capacity."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants import Grant
from auth.key_ring import KeyRing
from auth.revocations import Revocation
from auth.tokens import InvalidToken, TokenSigner
from relay.admission.caller import Caller
from relay.admission.capacity import PROTOCOLS, Capacity, LinkProtocol
from relay.admission.gate import Admission, Permit
from relay.errors import Unavailable
from relay.live.ending import ReconnectDelays

GRANT: Final = Grant("demo", "private", None, frozenset())
CALLER: Final = Caller("127.0.0.1", "test")
TEN: Final = Capacity(10, {"websocket": 1, "sse": 1, "proxy": 3, "grpc": 5})


def admission(capacity: Capacity = TEN) -> Admission:
    return Admission(KeyRing.demo(), TokenSigner.ephemeral(), capacity=capacity, delays=ReconnectDelays(100))


def entered(gate: Admission, protocol: LinkProtocol) -> Permit:
    return gate.enter(protocol, GRANT, CALLER)


def filled(*protocols: LinkProtocol) -> Admission:
    gate = admission()
    for protocol in protocols:
        entered(gate, protocol)
    return gate


@pytest.mark.parametrize(
    "protocols", [["grpc"], ["sse"] * 5, ["proxy", "websocket", "sse"]], ids=lambda protocols: "+".join(protocols)
)
def test_mixture_that_leaves_room_for_the_most_expensive(protocols: Sequence[LinkProtocol]) -> None:
    """Each takes its cost; the next link is admitted, of any protocol."""
    for protocol in PROTOCOLS:
        gate = filled(*protocols)
        assert not gate.full
        entered(gate, protocol)
        assert gate.links == len(protocols) + 1


@pytest.mark.parametrize(
    "protocols",
    [["grpc", "grpc"], ["grpc", "sse"], ["sse"] * 6, ["proxy", "proxy"]],
    ids=lambda protocols: "+".join(protocols),
)
def test_mixture_that_leaves_too_little(protocols: Sequence[LinkProtocol]) -> None:
    """It is full when the most expensive link does not fit; a cheaper one is refused, too, as /readyz reports."""
    gate = filled(*protocols)

    assert gate.full
    for protocol in PROTOCOLS:
        with pytest.raises(Unavailable) as refusal:
            entered(gate, protocol)
        assert refusal.value.reason == "capacity"
        assert 100 <= refusal.value.retry_ms <= 300
    assert gate.links == len(protocols)


def test_capacity_that_was_given_back_is_taken_again() -> None:
    """By a link of another protocol, when enough was given back."""
    gate = admission()
    proxy, *sse = [entered(gate, protocol) for protocol in ("proxy", "sse", "sse", "sse")]
    gate.leave(sse.pop())
    entered(gate, "grpc")
    gate.leave(proxy)
    gate.leave(sse.pop())

    assert gate.full
    gate.leave(sse.pop())
    assert not gate.full


def test_links_that_fit_are_estimated_from_the_open_ones() -> None:
    """So that open links divided by links that fit is the share that is taken: 6 of 10 here."""
    assert filled().max_links == 2
    assert filled("sse", "sse").max_links == 10
    assert filled("grpc").max_links == 2
    assert filled("proxy", "proxy").max_links == 3
    assert filled("grpc", "sse").max_links == 3


def test_number_of_links_that_is_set_is_the_number_that_fits() -> None:
    """Of any protocol; the last of them is admitted."""
    gate = admission(Capacity.of_links(2))
    seen = []
    for protocol in ("grpc", "sse"):
        seen.append((gate.full, gate.max_links))
        entered(gate, protocol)

    assert seen == [(False, 2), (False, 2)]
    assert (gate.full, gate.max_links) == (True, 2)


@given(st.lists(st.tuples(st.sampled_from(PROTOCOLS), st.booleans())))
def test_capacity_is_not_exceeded_by_links_that_come_and_go(moves: list[tuple[LinkProtocol, bool]]) -> None:
    """All links together never take more than the capacity, and an empty instance has all of it."""
    gate = admission()
    here: list[Permit] = []
    for protocol, comes in moves:
        if not comes and here:
            gate.leave(here.pop(0))
        elif not gate.full:
            here.append(entered(gate, protocol))
        assert sum(TEN.costs[permit.protocol] for permit in here) <= TEN.total
        assert gate.links == len(here)
    for permit in here:
        gate.leave(permit)

    assert gate.max_links == admission().max_links


def test_identity_whose_subject_was_revoked_gets_no_token() -> None:
    """A JWT of the provider that is older than the revocation would otherwise make a token that is newer."""
    signed_in = Grant("identity/0", "private", None, frozenset(), subject="anna", issued_at=1000.0)
    gate = admission()
    assert gate.token(signed_in)
    gate.revocations.change([Revocation.of_issued("anna")])

    with pytest.raises(InvalidToken, match="revoked"):
        gate.token(signed_in)
    assert gate.token(replace(signed_in, issued_at=time.time() + 1))
    assert gate.token(replace(signed_in, subject="berta"))
