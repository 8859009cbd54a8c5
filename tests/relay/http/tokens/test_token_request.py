"""Bodies of the token endpoint: which are read, which are ignored, which are refused."""

import pytest

from relay.errors import BadRequest
from relay.http.tokens.token_request import TokenRequest, read_token_request

JSON = "application/json"


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        *((JSON, body) for body in (b"", b" \n", b"{}", b" {} ", b"{ }", b"null", b'""')),
        (JSON, b'{"api_key":"x"}'),
        (JSON, b'{"type":"websocket","client":{"name":"x"}}'),
        *(("", b"x"), ("text/plain", b'{"games":["crash"]}'), ("application/octet-stream", b"\xff")),
        ("application/x-www-form-urlencoded", b"games=crash&ttl_s=5"),
        ("multipart/form-data", b"--x"),
    ],
)
def test_body_that_asks_for_nothing_is_ignored(media_type: str, body: bytes) -> None:
    """Clients that know of no body send what their library sends."""
    assert read_token_request(media_type, body) == TokenRequest()


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (b'{"games":["crash"]}', TokenRequest(games=("crash",))),
        (b'{"types":["slots","color"],"ttl_s":5}', TokenRequest(types=("slots", "color"), life_s=5)),
        (b'{"subject":"user 1","games":["dice","dice"]}', TokenRequest(games=("dice", "dice"), subject="user 1")),
    ],
)
def test_body_is_read(body: bytes, request_: TokenRequest) -> None:
    """Its media type in any case."""
    assert read_token_request(JSON, body) == request_
    assert read_token_request("Application/JSON", body) == request_


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"games=crash", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"games":["crash"],"games":["*"]}', "not a JSON object with each member once"),
        (b'{"games":["crash"]', "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b"[" * 4000, "not a JSON object"),
        (b'{"game":["crash"]}', "unknown member 'game'; allowed are: games, types, ttl_s, subject"),
        (b'{"Games":["crash"]}', "unknown member 'Games'"),
        (b'{"games":["crash"],"filter":1}', "unknown member 'filter'"),
        (b'{"ttl":5}', "unknown member 'ttl'"),
        (b'{"games":"crash"}', "games is not a list"),
        (b'{"games":null}', "games is not a list"),
        (b'{"games":[]}', "games is not a list of at least one"),
        (b'{"games":[1]}', "games is not a list"),
        (b'{"games":[""]}', "games is not a list"),
        (b'{"types":{}}', "types is not a list"),
        (b'{"ttl_s":0}', "ttl_s is 0; it must be a whole number from 1 to 30"),
        (b'{"ttl_s":31}', "ttl_s is 31;"),
        (b'{"ttl_s":1.5}', "ttl_s is 1.5;"),
        (b'{"ttl_s":true}', "ttl_s is true;"),
        (b'{"ttl_s":"5"}', 'ttl_s is "5";'),
        (b'{"subject":""}', "subject is not printable text"),
        (b'{"subject":7}', "subject is not printable text"),
        (b'{"subject":"a\\nb"}', "subject is not printable text"),
        (b'{"subject":"%s"}' % (b"x" * 129), "subject is not printable text of 1 to 128"),
    ],
)
def test_body_that_is_wrong_is_refused(body: bytes, says: str) -> None:
    """A token that is wider than its client meant would be worse than none."""
    with pytest.raises(BadRequest) as caught:
        read_token_request(JSON, body)

    assert says in str(caught.value)
    assert len(str(caught.value)) < 160
