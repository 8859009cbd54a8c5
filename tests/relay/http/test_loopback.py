"""Which hosts are this machine."""

import pytest

from relay.http.connections.loopback import is_loopback

OURS = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.8.9.1:80", "[::1]", "[::1]:8080", " localhost "]
FOREIGN = [
    "",
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost@evil.example",
    "evil.example#localhost",
    "evil.example@localhost",
    "localhost:1:2",
    "localhost.",
    "evil.example/127.0.0.1",
    "0.0.0.0",  # noqa: S104 - refused
    "192.168.1.2:8080",
    "[fe80::1]",
    "[::1",
    "[::1]evil.example",
    "x",
    "127.1",
    "2130706433",
]


@pytest.mark.parametrize("host", OURS)
def test_host_of_this_machine(host: str) -> None:
    """Any address of loopback, with any port."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_host_that_is_not_of_this_machine(host: str) -> None:
    """Names that an attacker's DNS can resolve to this machine, however they begin or end."""
    assert not is_loopback(host)
