"""Third-party Node clients, `ws` and `eventsource`, against a running relay."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.live_relay import LiveRelay, live_relay
from tests.clients.program import Program
from tests.clients.rounds_seen import checked
from tests.clients.tools import node_packages, tool

pytestmark = pytest.mark.service

SCRIPTS = Path(__file__).parent / "node"


def node(script: str, *arguments: str) -> Program:
    command = [tool("node"), script, *arguments]
    node_packages(SCRIPTS)
    return Program(command, cwd=SCRIPTS)


def wait_event(client: Program, event: str, *, count: int = 1) -> list[dict[str, Any]]:
    """Wait for an event of a script; return the data printed with it."""
    return [json.loads(match[0]) for match in client.wait_for(f'^{{"event":"{event}".*$', count=count)]


def test_ws_offers_its_token(relay: LiveRelay) -> None:
    """`ws` fails a handshake that selects none of its subprotocols; the token is selected, and compression is on."""
    token = relay.token()
    with node("ws.js", f"{relay.ws_url}/ws/crash", token) as client:
        [opened] = wait_event(client, "open")
        messages = wait_event(client, "message", count=3)

    assert opened["protocol"] == token
    assert "permessage-deflate" in opened["extensions"]
    assert not any(message["binary"] for message in messages)
    assert {checked(message["data"])["game_slug"] for message in messages} == {"crash"}


def test_ws_offers_the_named_protocol_beside_its_token(relay: LiveRelay) -> None:
    """`datastream.v1` is selected when it is offered."""
    with node("ws.js", f"{relay.ws_url}/ws/crash", "datastream.v1", relay.token()) as client:
        [opened] = wait_event(client, "open")

    assert opened["protocol"] == "datastream.v1"


def test_ws_with_an_invalid_token(relay: LiveRelay) -> None:
    """The handshake is refused with 401."""
    with node("ws.js", f"{relay.ws_url}/ws/crash", "not-a-token") as client:
        [error] = wait_event(client, "error")

    assert "401" in error["message"]


def test_ws_sees_a_drain(own_relay: LiveRelay) -> None:
    """A relay that stops closes with 1012, a delay and the client's cursor."""
    with node("ws.js", f"{own_relay.ws_url}/ws/crash", own_relay.token()) as client:
        [message] = wait_event(client, "message")
        own_relay.stop()
        [closed] = wait_event(client, "close")

    reason = json.loads(closed["reason"])
    assert closed["code"] == 1012
    assert reason["reason"] == "draining"
    assert reason["retry_ms"] >= 0
    epoch = checked(message["data"])["cursor"].partition("-")[0]
    assert reason["cursor"].startswith(f"{epoch}-")


def test_eventsource_sees_rounds_as_messages(relay: LiveRelay) -> None:
    """Rounds have the default event type, and their cursor as id."""
    with node("eventsource.js", f"{relay.url}/sse/crash?api_key={relay.key}") as client:
        messages = wait_event(client, "message", count=3)

    assert all(message["lastEventId"] == checked(message["data"])["cursor"] for message in messages)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/sse/crash", 401), ("/sse/no-such-game?api_key={key}", 404), ("/sse/crash?api_key=sk_live_nobody", 401)],
)
def test_eventsource_gives_up_when_the_request_is_wrong(relay: LiveRelay, path: str, status: int) -> None:
    """An EventSource does not reconnect after an error status: right for a wrong key or game."""
    with node("eventsource.js", relay.url + path.format(key=relay.key)) as client:
        [gone] = wait_event(client, "gave_up")

    assert gone["code"] == status


def test_eventsource_reconnects_after_a_restart(own_relay: LiveRelay) -> None:
    """A draining relay ends the stream so that an EventSource reconnects by itself."""
    with node("eventsource.js", f"{own_relay.url}/sse/crash?api_key={own_relay.key}") as client:
        wait_event(client, "message")
        own_relay.restart()
        wait_event(client, "comes_back")
        wait_event(client, "message", count=2)


def test_full_relay_closes_ws_and_delays_eventsource() -> None:
    """A full relay closes with 1013; an EventSource retries by itself until there is capacity."""
    with live_relay({"RELAY_LINKS_MAX_LINKS": "1", "RELAY_LINKS_RETRY_MS": "100"}) as relay:
        with node("ws.js", f"{relay.ws_url}/ws/crash", relay.token()) as first:
            wait_event(first, "message")
            with node("ws.js", f"{relay.ws_url}/ws/crash", relay.token()) as second:
                [closed] = wait_event(second, "close")
            waiting = node("eventsource.js", f"{relay.url}/sse/crash?api_key={relay.key}")
            wait_event(waiting, "comes_back", count=2)
        with waiting:
            wait_event(waiting, "message")

    assert closed["code"] == 1013
    assert json.loads(closed["reason"])["reason"] == "capacity"
