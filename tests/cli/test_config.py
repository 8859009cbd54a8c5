"""What the command says of itself and of its settings, without starting anything."""

import json
import re
from pathlib import Path

import pytest

from auth.keys import hash_of
from tests.cli.command import assert_one_line, run

pytestmark = pytest.mark.service


def test_version() -> None:
    """Name and number, and no more."""
    outcome = run("--version")

    assert outcome.code == 0
    assert re.fullmatch(r"stream-relay \d+\.\d+\.\d+\S*\n", outcome.out)


def test_config_shows_what_is_in_force(tmp_path: Path) -> None:
    """Every variable with its value, and which of them somebody has set, in the environment or in a file."""
    file = tmp_path / "relay.toml"
    file.write_text("[links]\nretry_ms = 7\n")
    rows = dict(
        line.split(maxsplit=1)
        for line in run("--config", str(file), "config", RELAY_HTTP_PORT="1234").out.splitlines()[1:]
        if " " in line.strip()
    )

    assert rows["RELAY_HTTP_PORT"].split() == ["1234", "set"]
    assert rows["RELAY_LINKS_RETRY_MS"].split() == ["7", "set"]
    assert rows["RELAY_DRAIN_GRACE_S"].split() == ["10.0"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_masks_every_secret(form: list[str]) -> None:
    """In fields that are secret as such, and inside URLs and backend options."""
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
        ({"RELAY_HTTP_PORT": "abc"}, ["RELAY_HTTP_PORT='abc'", "integer"]),
        ({"RELAY_LOG_LEVEL": "loud"}, ["RELAY_LOG_LEVEL='loud'", "'debug'"]),
        ({"RELAY_LINKS_FOO": "1"}, ["RELAY_LINKS_FOO", "RELAY_LINKS_RETRY_MS"]),
        ({"RELAY_CONFIG": "/nowhere"}, ["RELAY_CONFIG='/nowhere'", "readable file"]),
        ({"RELAY_NATS_PASSWORD": "p"}, ["RELAY_NATS", "user and password"]),
    ],
)
def test_wrong_setting_is_told_in_one_line(wrong: dict[str, str], parts: list[str]) -> None:
    """The setting, its value, what is allowed; never a traceback."""
    assert_one_line(run("config", **wrong), *parts)


@pytest.mark.parametrize("command", ["serve", "ingest", "dev"])
def test_wrong_setting_stops_every_command(command: str) -> None:
    """With the same line, before anything is started."""
    assert_one_line(run(command, RELAY_LOG_LEVEL="loud"), "RELAY_LOG_LEVEL='loud'")


def test_new_key_and_secret_are_what_serve_takes() -> None:
    """The key goes to the client, its hash to the settings."""
    made = run("key", "new", "--kind", "public")
    printed = made.out + made.err
    [key], [stored] = re.findall(r"pk_live_[0-9a-f]{64}", printed), re.findall(r"sha256:[0-9a-f]{64}", printed)
    [first], [second] = (run("key", "secret").out.splitlines() for _ in range(2))

    assert stored == hash_of(key)
    assert re.fullmatch(r"k\w+:[\w-]{43}", first)
    assert first != second
