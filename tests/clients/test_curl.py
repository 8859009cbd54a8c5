"""curl against a running relay."""

import pytest

from tests.clients.live_relay import LiveRelay
from tests.clients.program import Program
from tests.clients.rounds_seen import checked
from tests.clients.tools import tool

pytestmark = pytest.mark.service


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_curl_prints_a_stream(relay: LiveRelay, version: str) -> None:
    """`curl -N` shows each round with its id, over HTTP/1.1 in chunks and over HTTP/1.0 without."""
    with Program([tool("curl"), "-sN", version, "-H", f"X-API-Key: {relay.key}", f"{relay.url}/sse/crash"]) as curl:
        curl.wait_for(r"^retry: \d+$")
        for _ in range(2):
            [data] = curl.wait_for(r"^data: (.+)$")
            place = curl.printed.index(data[0])
            assert curl.printed[place - 1] == f"id: {checked(data[1])['cursor']}"


def test_curl_follows_all_games_with_its_key_in_the_url(relay: LiveRelay) -> None:
    """`/sse` without a game streams every game."""
    with Program([tool("curl"), "-sN", f"{relay.url}/sse?api_key={relay.key}"]) as curl:
        games = {checked(data[1])["game_slug"] for data in curl.wait_for(r"^data: (.+)$", count=12)}

    assert len(games) > 1


def test_curl_asks_a_websocket_path_without_a_handshake(relay: LiveRelay) -> None:
    """426 and a sentence that names the right client."""
    with Program([tool("curl"), "-si", "-H", f"X-API-Key: {relay.key}", f"{relay.url}/ws/crash"]) as curl:
        curl.wait()

    assert curl.printed[0].startswith("HTTP/1.1 426")
    assert '"success":false' in curl.printed[-1]
