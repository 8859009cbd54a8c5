"""What log lines say of a client."""

import pytest

from relay.admission.caller import Caller, shown_games


def test_user_agent_is_bounded_and_printable() -> None:
    """A client chooses it: it can neither fill a line, nor end one, nor change how a terminal shows it."""
    assert Caller.of("192.0.2.1", "curl/8.1") == ("192.0.2.1", "curl/8.1")
    assert Caller.of(None, None) == ("", "")
    assert Caller.of("::ffff:192.0.2.1", None).address == "192.0.2.1"
    assert Caller.of("::1", "a\nb\x1b[2J\u202ec\x7f").user_agent == "a?b?[2J?c?"
    assert Caller.of("::1", "x" * 100_000).user_agent == "x" * 100


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50123", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50123", "2001:db8::1"),
        ("ipv6:[::1]:50123", "::1"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:50123", "192.0.2.1"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
    ],
)
def test_address_of_a_grpc_peer(peer: str, address: str) -> None:
    """As over HTTP, without the port."""
    assert Caller.of_peer(peer, "grpc-go/1.60").address == address


def test_ipv4_address_is_the_same_on_a_socket_for_both_families() -> None:
    """With ``RELAY_HTTP_HOST=::`` the system puts it into an address of IPv6."""
    assert Caller.of("::ffff:192.0.2.1", None).address == "192.0.2.1"
    assert Caller.of("2001:db8::ffff:1", None).address == "2001:db8::ffff:1"
    assert Caller.of("::ffff:1", None).address == "::ffff:1"


def test_long_list_of_games_is_cut_between_names() -> None:
    """Short lists are whole and sorted."""
    assert shown_games({"dice", "crash"}) == "crash,dice"
    assert shown_games([]) == "all"
    shown = shown_games(f"game-{number:03}" for number in range(100))
    assert len(shown) <= 104
    assert shown.startswith("game-000,game-001,")
    assert shown.endswith(",game-010,...")
