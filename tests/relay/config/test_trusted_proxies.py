"""The client's address behind proxies: only what trusted ones have added is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.settings import InvalidSettings, load
from relay.config.trusted_proxies import TrustedProxies

PROXIES = TrustedProxies.parse("10.0.0.0/8, 192.168.1.1, fd00::/8")
CLIENT = "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("198.51.100.1", CLIENT, "198.51.100.1"),  # not a proxy: it may claim what it likes
        ("10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"6.6.6.6, {CLIENT}", CLIENT),  # the client sent the header itself, and the proxy appended
        ("10.0.0.1", f"{CLIENT}, 10.9.9.9,192.168.1.1", CLIENT),  # a chain of proxies
        ("10.0.0.1", f"{CLIENT}:49152", CLIENT),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", "2001:DB8::7", "2001:db8::7"),
        ("10.0.0.1", "::ffff:203.0.113.7", CLIENT),
        ("fd00::1", CLIENT, CLIENT),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),  # all are proxies: a check of the balancer itself
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, 10.0.0.3, bogus", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, bogus, 10.0.0.3", "10.0.0.3"),
        ("10.0.0.1", f"{CLIENT},", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4 " * 400, "10.0.0.1"),  # too long
        ("10.0.0.1", "6.6.6.6, " * 400 + CLIENT, CLIENT),  # what a client has sent hides nothing
        ("10.0.0.1", "x" * 4000 + f", {CLIENT}, 10.0.0.2", CLIENT),
        ("10.0.0.1", "x" * 4000 + ",", "10.0.0.1"),
        ("10.0.0.1", ",".join([CLIENT] + ["10.0.0.2"] * 40), "10.0.0.2"),  # too many
        ("", CLIENT, ""),
    ],
)
def test_x_forwarded_for(peer: str, header: str, client: str) -> None:
    assert PROXIES.client(peer, header, "") == client


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https;by=10.0.0.1", CLIENT),
        (f"proto=https; for={CLIENT}", CLIENT),
        (f'for="{CLIENT}:8080"', CLIENT),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        ('FOR="[2001:db8::7]"', "2001:db8::7"),
        (f"for=6.6.6.6, for={CLIENT}, for=10.1.1.1", CLIENT),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
        (f"for={CLIENT}, for=_hidden, for=10.1.1.1", "10.1.1.1"),
        (f"xfor={CLIENT}", "10.0.0.1"),
        ('for="_x";' * 400 + f", for={CLIENT}", CLIENT),
    ],
)
def test_forwarded(header: str, client: str) -> None:
    """RFC 7239."""
    assert PROXIES.client("10.0.0.1", "", header) == client


def test_x_forwarded_for_is_read_where_both_are() -> None:
    """A proxy that writes the older header may pass on the other one as its client sent it."""
    assert PROXIES.client("10.0.0.1", CLIENT, "for=6.6.6.6") == CLIENT


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_header_gives_an_address_of_the_client_or_a_proxy(forwarded_for: str, forwarded: str) -> None:
    """It never fails."""
    for header in (forwarded_for, f"{CLIENT}, {forwarded_for}"):
        PROXIES.client("10.0.0.1", header, forwarded)
    assert TrustedProxies().client("10.0.0.1", forwarded_for, forwarded) == "10.0.0.1"


def test_setting_that_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is refused with the entry and what is allowed."""
    monkeypatch.setenv("RELAY_HTTP_TRUSTED_PROXIES", "10.0.0.0/8,balancer")
    with pytest.raises(InvalidSettings, match=r"RELAY_HTTP_TRUSTED_PROXIES.*'balancer' is no address or network"):
        load()
