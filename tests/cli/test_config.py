"""``stream-relay --version``, ``config`` and ``key``, which start no server."""

import json
import re
from pathlib import Path

import pytest

from auth.key import Kind
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from tests.cli.command import assert_one_line, run

pytestmark = pytest.mark.service


def test_version() -> None:
    """The output is the name and the version."""
    outcome = run("--version")

    assert outcome.code == 0
    assert re.fullmatch(r"stream-relay \d+\.\d+\.\d+\S*\n", outcome.out)


def test_config_shows_every_setting_and_its_source(tmp_path: Path) -> None:
    """Every variable has its value, and its source: environment, file, platform or default."""
    file = tmp_path / "relay.toml"
    file.write_text("[links]\nretry_ms = 7\n[backend]\nspeed = 2\n[grpc]\nport = 1\n")
    given = {"RELAY_GRPC_PORT": "1234", "RELAY_BACKEND_PATH": "x.jsonl", "PORT": "1235"}
    heading, *rows = (line.split() for line in run("--config", str(file), "config", **given).out.splitlines())

    assert heading == ["setting", "value", "from"]
    assert all(len(row) == 3 for row in rows)
    for row in (
        ["RELAY_GRPC_PORT", "1234", "environment"],
        ["RELAY_HTTP_PORT", "1235", "PORT"],
        ["RELAY_LINKS_RETRY_MS", "7", "file"],
        ["RELAY_BACKEND_SPEED", "2", "file"],
        ["RELAY_BACKEND_PATH", "x.jsonl", "environment"],
        ["RELAY_DRAIN_GRACE_S", "10.0", "default"],
        ["RELAY_AUTH_KEYS", "-", "default"],
        ["RELAY_GAMES_FILE", "-", "default"],
    ):
        assert row in rows


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_masks_every_secret(form: list[str]) -> None:
    """Secret fields, and secrets in URLs and backend options, are masked."""
    secrets = {
        "RELAY_AUTH_KEYS": "k=secret1",
        "RELAY_AUTH_TOKEN_SECRETS": "t:secret2",
        "RELAY_NATS_USER": "u",
        "RELAY_NATS_PASSWORD": "secret3",
        "RELAY_NATS_URL": "nats://u:secret4@h:4222",
        "RELAY_BACKEND_DSN": "postgres://u:secret5@h/db",
        "RELAY_BACKEND_API_KEY": "secret6",
    }
    outcome = run("config", *form, **secrets)

    assert outcome.code == 0
    assert not re.search(r"secret\d", outcome.out)
    assert "h:4222" in outcome.out
    if form:
        assert json.loads(outcome.out)["backend"]["api_key"] == "***"


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"RELAY_HTTP_PORT": "abc"}, ["RELAY_HTTP_PORT='abc'", "a whole number from 0 to 65535"]),
        ({"RELAY_LOG_LEVEL": "loud"}, ["RELAY_LOG_LEVEL='loud'", "'debug'"]),
        ({"RELAY_LINKS_FOO": "1"}, ["RELAY_LINKS_FOO", "RELAY_LINKS_RETRY_MS"]),
        ({"RELAY_CONFIG": "/nowhere"}, ["RELAY_CONFIG='/nowhere'", "readable file"]),
        ({"RELAY_NATS_PASSWORD": "p"}, ["RELAY_NATS", "user and password"]),
    ],
)
def test_wrong_setting_is_reported_in_one_line(wrong: dict[str, str], parts: list[str]) -> None:
    """The line has the setting, its value and what is allowed."""
    assert_one_line(run("config", **wrong), *parts)


@pytest.mark.parametrize("command", ["serve", "ingest", "dev"])
def test_wrong_setting_stops_every_command(command: str) -> None:
    """Each command prints the same line and starts nothing."""
    assert_one_line(run(command, RELAY_LOG_LEVEL="loud"), "RELAY_LOG_LEVEL='loud'")


@pytest.mark.parametrize("kind", ["private", "public"])
def test_new_key_is_printed_with_an_entry_that_serve_accepts(kind: Kind) -> None:
    """Stdout has two lines: the key for the client, and the entry for RELAY_AUTH_KEYS."""
    key, entry = run("key", "new", "--kind", kind, "--id", "partner").out.splitlines()

    found = KeyRing(read_keys(text=entry)).authenticate(key)
    assert (found.id, found.kind) == ("partner", kind)
    assert run("key", "new").out.splitlines()[1].startswith("client1=sha256:")


def test_new_key_with_an_id_that_is_not_allowed() -> None:
    """The command says what is allowed, and prints no key."""
    assert_one_line(run("key", "new", "--id", "a b"), "'a b'", "1 to 64 letters")


def test_new_secrets_differ() -> None:
    """Each is a valid entry of RELAY_AUTH_TOKEN_SECRETS."""
    [first], [second] = (run("key", "secret").out.splitlines() for _ in range(2))

    assert re.fullmatch(r"k\w+:[\w-]{43}", first)
    assert first != second
