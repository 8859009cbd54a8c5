"""``serve`` and ``ingest`` that cannot start print one line with what to do."""

import socket
from pathlib import Path
from secrets import token_hex

import pytest

from auth.key_secret import DEMO_KEY, generate, hash_of
from tests.cli.command import assert_one_line, run
from tests.nats import NatsServer
from tests.relay.serving import SETTINGS

pytestmark = pytest.mark.service

KEYS = f"k={generate('private')[1]}"
SECRETS = f"t:{token_hex(32)}"


def test_without_keys() -> None:
    """The line has the settings to set, and the command that makes a key."""
    assert_one_line(run("serve", **SETTINGS), "RELAY_AUTH_KEYS", "stream-relay key new")


def test_without_token_secrets() -> None:
    """All relays need the same secrets, so the relay does not generate one."""
    assert_one_line(
        run("serve", RELAY_AUTH_KEYS=KEYS, **SETTINGS), "RELAY_AUTH_TOKEN_SECRETS", "stream-relay key secret"
    )


@pytest.mark.parametrize(
    ("auth", "parts"),
    [
        ({"RELAY_AUTH_KEYS": DEMO_KEY}, ["keys line"]),
        ({"RELAY_AUTH_KEYS": f"k={DEMO_KEY}"}, ["keys line", "plain secret"]),
        ({"RELAY_AUTH_KEYS": f"k={hash_of(DEMO_KEY)}"}, ["demo's key"]),
        ({"RELAY_AUTH_KEYS_FILE": "/nowhere"}, ["RELAY_AUTH_KEYS_FILE", "/nowhere"]),
        ({"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_SECRETS": "t:short"}, ["it must have at least 32"]),
        ({"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_SECRETS": f"t:{'secret' * 8}"}, ["entry 1 is easy to guess"]),
        ({"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_SECRETS_FILE": "/nowhere"}, ["TOKEN_SECRETS_FILE", "/nowhere"]),
        ({"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_KEY_FILES": "a:/nowhere"}, ["TOKEN_KEY_FILES", "/nowhere"]),
        ({"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_SIGNING_ID": "b"}, ["no key has the id 'b'", "there are: t"]),
    ],
)
def test_with_keys_that_cannot_be_used(auth: dict[str, str], parts: list[str]) -> None:
    """The line has the entry and the error, and never the secret."""
    outcome = run("serve", **SETTINGS, **({"RELAY_AUTH_TOKEN_SECRETS": SECRETS} | auth))

    assert_one_line(outcome, *parts)
    assert DEMO_KEY not in outcome.err


def test_with_a_key_for_an_unknown_game() -> None:
    """The line has the key, the game and the known games."""
    auth = {"RELAY_AUTH_KEYS": f"{KEYS} games=crash,chess", "RELAY_AUTH_TOKEN_SECRETS": SECRETS}

    assert_one_line(run("serve", **auth, **SETTINGS), "key 'k'", "'chess'", "known games: ", "crash")


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_on_a_busy_port(command: str) -> None:
    """The line has the port, and the setting to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = SETTINGS | {"RELAY_HTTP_PORT": port, "RELAY_LOG_LEVEL": "error"}
        if command == "serve":
            environment |= {"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_SECRETS": SECRETS}
        else:
            del environment["RELAY_HTTP_HOST"]
        outcome = run(command, **environment)

    assert_one_line(outcome, f"127.0.0.1:{port}", "RELAY_HTTP_PORT")


def test_help_names_every_port() -> None:
    """The help of ``serve`` has the port of gRPC too, which a firewall must allow."""
    shown = " ".join(run("serve", "--help", COLUMNS="200").out.split())

    assert "gRPC on another port (50051)" in shown
    assert "--grpc-port" in shown


def test_on_a_busy_grpc_port() -> None:
    """The output is our sentence only, without the output of the gRPC library."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = SETTINGS | {"RELAY_GRPC_HOST": "127.0.0.1", "RELAY_GRPC_PORT": port, "RELAY_LOG_LEVEL": "error"}
        outcome = run("serve", RELAY_AUTH_KEYS=KEYS, RELAY_AUTH_TOKEN_SECRETS=SECRETS, **environment)

    assert_one_line(outcome, f"127.0.0.1:{port}", "RELAY_GRPC_PORT")


def test_with_a_games_file_that_is_wrong(tmp_path: Path) -> None:
    """The line has the file, the entry and what is allowed."""
    games = tmp_path / "games.toml"
    games.write_text("[games.new]\ntype = 'nope'\n")
    auth = {"RELAY_AUTH_KEYS": KEYS, "RELAY_AUTH_TOKEN_SECRETS": SECRETS}

    assert_one_line(run("serve", RELAY_GAMES_FILE=str(games), **auth, **SETTINGS), str(games), "'nope'", "multiplier")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--backend", "nope"], ["'nope'", "known backends: ", "file"]),
        (["--option", "loud"], ["'loud'", "NAME=VALUE"]),
        (["--backend", "file", "-o", "path=/nowhere"], ["/nowhere"]),
        (["--backend", "file", "-o", "path=x", "-o", "sped=2"], ["sped", "speed"]),
    ],
)
async def test_ingest_that_cannot_start(nats: NatsServer, arguments: list[str], parts: list[str]) -> None:
    """The line lists the known backends for an unknown one, and the known options for an unknown one."""
    outcome = run("ingest", *arguments, RELAY_NATS_URL=nats.url, RELAY_LOG_LEVEL="error", RELAY_INGEST_PORT="0")

    *events, sentence = outcome.err.splitlines(keepends=True)
    assert_one_line(outcome._replace(err=sentence), *parts)
    assert all('"ingest_failed"' in event for event in events)  # the log of a supervisor shows these
