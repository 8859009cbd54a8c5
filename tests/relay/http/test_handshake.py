"""The opening handshake: the RFC's own example, and the negotiation of compression."""

import pytest
from multidict import CIMultiDict

from relay.errors import BadRequest, NeedsUpgrade
from relay.http.websocket.handshake import check_upgrade, shake_hands

RFC_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3


def request(**headers: str) -> CIMultiDict[str]:
    given = {
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": RFC_KEY,
    }
    return CIMultiDict(given | {name.replace("_", "-"): value for name, value in headers.items()})


def test_example_of_the_rfc() -> None:
    """RFC 6455 section 1.3."""
    answer = shake_hands(request(), subprotocol="datastream.v1")

    assert answer.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer.headers["Sec-WebSocket-Protocol"] == "datastream.v1"
    assert (answer.window_bits, "Sec-WebSocket-Extensions" in answer.headers) == (0, False)


@pytest.mark.parametrize(
    ("offers", "window_bits"),
    [
        ("permessage-deflate", 15),
        ("permessage-deflate; client_max_window_bits", 15),
        ("permessage-deflate; server_max_window_bits=15", 15),
        ("permessage-deflate; client_max_window_bits=8", 15),
        ("permessage-deflate; server_max_window_bits=10; server_no_context_takeover", 10),
        ('permessage-deflate; server_max_window_bits="12"', 12),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", 15),  # the second is acceptable
        ("permessage-deflate; server_max_window_bits=8", 0),
        ("permessage-deflate; server_max_window_bits=16", 0),
        ("permessage-deflate; server_max_window_bits", 0),
        ("permessage-deflate; client_max_window_bits=99", 0),
        ("permessage-deflate; something_new", 0),
        ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", 0),
        ("x-webkit-deflate-frame", 0),
        ("", 0),
    ],
)
def test_first_acceptable_offer_is_accepted(offers: str, window_bits: int) -> None:
    """RFC 7692 section 5: an unacceptable offer is declined, and the next one is considered."""
    answer = shake_hands(request(Sec_WebSocket_Extensions=offers), subprotocol=None)

    assert answer.window_bits == window_bits
    extension = answer.headers.get("Sec-WebSocket-Extensions", "")
    assert ("no_context_takeover" in extension) == bool(window_bits)
    asked = "server_max_window_bits=" in offers and ", " not in offers
    assert ("server_max_window_bits" in extension) == (bool(window_bits) and asked)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Key": ""},
        {"Sec_WebSocket_Key": "short"},
        {"Sec_WebSocket_Key": "A" * 22 + "="},
        {"Sec_WebSocket_Key": "A" * 24},
        {"Connection": "keep-alive"},
    ],
)
def test_error_of_a_malformed_handshake_names_the_header(headers: dict[str, str]) -> None:
    """One sentence."""
    with pytest.raises(BadRequest, match=next(iter(headers)).replace("_", "-")):
        shake_hands(request(**headers), subprotocol=None)


def test_connection_may_come_in_several_lines() -> None:
    """RFC 9110 section 5.3: several lines are one list."""
    headers = request(Connection="keep-alive")
    headers.add("connection", "Upgrade")

    assert shake_hands(headers, subprotocol=None).headers["Connection"] == "Upgrade"


@pytest.mark.parametrize(
    ("lines", "window_bits"),
    [
        (["x-webkit-deflate-frame", "permessage-deflate"], 15),
        (["permessage-deflate; something_new", "x, permessage-deflate; server_max_window_bits=10"], 10),
        (["permessage-deflate; ; x", "permessage-deflate"], 15),  # a malformed offer is ignored
        (["permessage-deflate; server_max_window_bits=11", "permessage-deflate"], 11),  # the first has preference
    ],
)
def test_offers_may_come_in_several_lines(lines: list[str], window_bits: int) -> None:
    """RFC 6455 section 9.1: several lines are one list."""
    headers = request()
    for line in lines:
        headers.add("Sec-WebSocket-Extensions", line)

    assert shake_hands(headers, subprotocol=None).window_bits == window_bits


def test_missing_upgrade_and_other_versions_get_426() -> None:
    """426 names the supported version."""
    with pytest.raises(NeedsUpgrade):
        check_upgrade(CIMultiDict())
    with pytest.raises(NeedsUpgrade):
        shake_hands(request(Sec_WebSocket_Version="8"), subprotocol=None)


@pytest.mark.parametrize(
    "lines",
    [["websocket"], ["WebSocket"], ["h2c, websocket"], ["h2c", "websocket"], ["websocket", "h2c"], [" ,, websocket,"]],
)
def test_upgrade_is_a_list(lines: list[str]) -> None:
    """RFC 9110 section 7.8: the client offers several protocols, and the server chooses one."""
    headers = request()
    for line in lines:
        headers.add("upgrade", line)

    check_upgrade(headers)


@pytest.mark.parametrize("value", ["", ",", "h2c", "websockets", '"websocket"', "web, socket"])
def test_other_upgrades_are_no_handshake(value: str) -> None:
    """They get 426."""
    with pytest.raises(NeedsUpgrade):
        check_upgrade(request(Upgrade=value))


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_single_header_with_two_values_is_malformed(name: str) -> None:
    """RFC 6455 section 11.3: it must not occur twice; the same line twice says the same."""
    headers = request()
    headers.add(name, headers[name])
    assert shake_hands(headers, subprotocol=None).headers
    headers.add(name, "x")

    with pytest.raises(BadRequest, match=name):
        shake_hands(headers, subprotocol=None)


def test_comma_in_a_quoted_string_ends_no_element() -> None:
    """An offer is not found inside of another one's parameter."""
    quoted = 'x; a="b, permessage-deflate, c"'

    assert shake_hands(request(Sec_WebSocket_Extensions=quoted), subprotocol=None).window_bits == 0
    assert shake_hands(request(Sec_WebSocket_Extensions=f"{quoted}, permessage-deflate"), subprotocol=None).window_bits


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("permessage-deflate", "permessage-deflate; client_no_context_takeover"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_no_context_takeover"),
        (
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            "permessage-deflate; server_max_window_bits=9; client_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
        ),
        (
            "permessage-deflate; server_no_context_takeover=1, permessage-deflate; server_max_window_bits=12",
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
        ),
        (
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=15, permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
        ),
    ],
)
def test_window_is_kept_unless_the_client_asks_for_the_opposite(offers: str, answer: str) -> None:
    """RFC 7692 section 7.1.1.1: what the answer does not promise, the client must be prepared for."""
    found = shake_hands(request(Sec_WebSocket_Extensions=offers), subprotocol=None)

    assert found.headers["Sec-WebSocket-Extensions"] == answer
    assert found.keeps_window == ("server_no_context_takeover" not in answer)


def test_compression_that_is_switched_off_is_declined() -> None:
    """As any extension that a server does not know."""
    offer = request(Sec_WebSocket_Extensions="permessage-deflate")
    answer = shake_hands(offer, subprotocol=None, compresses=False)

    assert (answer.window_bits, answer.keeps_window) == (0, False)
    assert "Sec-WebSocket-Extensions" not in answer.headers
