"""``stream-relay serve`` with few imports."""

import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from relay.commands import root
from relay.commands.plain_serve import plain_overrides

_STARTED = """
import sys
from relay import cli
from relay.commands import run

def imported(work):
    work.close()
    print(*sys.modules)

run.run = imported
sys.argv = ["stream-relay", "serve", "--port", "0"]
cli.main()
"""
_CERTIFICATES = """
import ssl
from relay.http.connections.early_import import import_aiohttp, read_certificates

load, verify = ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths
import_aiohttp()
from aiohttp import connector

contexts = [connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED]
assert load is ssl.SSLContext.load_default_certs and verify is ssl.SSLContext.set_default_verify_paths
print([context.cert_store_stats()["x509"] for context in contexts], contexts[0].verify_mode.name)
read_certificates()
other = ssl.create_default_context()
print([context.cert_store_stats() == other.cert_store_stats() for context in contexts])
"""
_NOT_IMPORTED = {
    "asyncpg",
    "cryptography",
    "dotenv",
    "grpc",
    "prometheus_client",
    "psycopg",
    "pydantic_settings",
    "pygments",
    "relay.admin.api",
    "relay.commands.root",
    "relay.demo",
    "rich",
    "sqlite3",
    "typer",
    "websockets",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what a relay needs to start."""
    monkeypatch.setenv("RELAY_AUTH_TOKEN_SECRETS", f"t:{'ab12' * 16}")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("secrets")
def test_a_relay_starts_without_what_it_does_not_need_at_once() -> None:
    """A platform waits for the imports when it starts a relay for a request."""
    modules = set(run(_STARTED).split())

    assert "relay.serve" in modules
    assert modules & _NOT_IMPORTED == set()


def test_certificates_are_read_later() -> None:
    """aiohttp reads them when it is imported, for 50 ms. Without them it trusts no server; later all are there."""
    first, later = run(_CERTIFICATES).splitlines()

    assert first == "[0, 0] CERT_REQUIRED"
    assert later == "[True, True]"


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ("serve", {}),
        ("serve --port 0 --grpc-port=65535", {"http": {"port": 0}, "grpc": {"port": 65535}}),
        ("serve --port 1 --host ::1 --port 2", {"http": {"port": 2, "host": "::1"}}),
        ("--config x.toml serve", {"config": "x.toml"}),
        ("serve --port 65536", None),
        ("serve --port -1", None),
        ("serve --port ٣", None),
        ("serve --port", None),
        ("serve --host=", None),
        ("serve -h", None),
        ("serve --prot 1", None),
        ("serve serve", None),
        ("serve --config x.toml", None),
        ("--host ::1 serve", None),
        ("--version", None),
        ("", None),
        ("dev", None),
    ],
)
def test_plain_arguments(arguments: str, overrides: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain arguments are read as by the command line's library; what is unusual or wrong is left to it."""
    words = arguments.split()
    assert plain_overrides(words) == overrides
    if overrides is None:
        return

    given = list[object]()

    async def serve(_settings: object) -> None:
        pass

    monkeypatch.setattr("relay.serve.serve", serve)
    monkeypatch.setattr(root, "load_settings", given.append)
    monkeypatch.setenv("RELAY_CONFIG", "")  # so that what the option sets is taken back
    assert CliRunner().invoke(root.app, words).exit_code == 0
    assert given == [{section: fields for section, fields in overrides.items() if section != "config"}]


def test_a_relay_that_cannot_start_has_no_haste() -> None:
    """It reports what is missing; Ctrl-C during that is quiet, as in every command."""
    assert plain_overrides(["serve"]) is None
