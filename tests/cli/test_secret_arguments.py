"""A secret on the command line causes a warning, and can be given elsewhere. No warning has the secret."""

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
from typer.testing import CliRunner

from auth.key_secret import DEMO_KEY
from relay.commands.root import app
from tests.cli.command import COMMAND, Outcome, assert_one_line
from tests.clients.program import clean_environment

KEY: Final = "sk_live_" + "7" * 64
DSN: Final = "postgresql://user:hunter2@127.0.0.1:1/x?connect_timeout=1"


def ran(*arguments: str, **environment: str) -> Outcome:
    """Run a command in this process."""
    done = CliRunner().invoke(app, arguments, env=environment)
    return Outcome(done.exit_code, done.stdout, done.stderr)


def warnings(outcome: Outcome) -> list[str]:
    return [line for line in outcome.err.splitlines() if line.startswith("stream-relay: warning: ")]


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (("history", "--url", "ftp://x", "--key", KEY), "API_KEY"),
        (("export", "x.jsonl", "--url", "ftp://x", "--key", KEY), "--key-file"),
        (("tail", "--url", "ftp://x", "--key", KEY), "API_KEY"),
        (("replay", "--url", "ftp://x", "--last", "1", "--key", KEY), "API_KEY"),
        (("history", "--url", "ftp://user:hunter2@x"), "BASE_URL"),
        (("ingest", "--backend", "none", "-o", f"dsn={DSN}"), "RELAY_BACKEND_DSN"),
        (("ingest", "--backend", "none", "-o", "dsn=host=x password=hunter2"), "PGPASSFILE"),
        (("ingest", "--backend", "none", "-o", "dsn=postgresql://x/y?sslpassword=hunter2"), "PGPASSFILE"),
        (("ingest", "--backend", "none", "-o", "api_token=hunter2"), "RELAY_BACKEND_API_TOKEN"),
        (("backend", "check", "--backend", "none", "-o", f"dsn={DSN}"), "RELAY_BACKEND_DSN"),
        (("backend", "setup", "--backend", "none", "--dsn", DSN), "ADMIN_DSN"),
        (("backend", "teardown", "--yes", "--backend", "none", "--dsn", DSN), "ADMIN_DSN"),
    ],
)
def test_secret_in_an_argument_is_warned_of(arguments: tuple[str, ...], instead: str) -> None:
    """With what to use instead, once."""
    outcome = ran(*arguments)

    [warning] = warnings(outcome)
    assert instead in warning
    assert "hunter2" not in warning
    assert KEY[8:] not in warning


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("history", "--url", "ftp://x"), {"API_KEY": KEY}),
        (("history", "--url", "ftp://x", "--key", DEMO_KEY), {}),
        (("history",), {"BASE_URL": "ftp://user:hunter2@127.0.0.1:1"}),
        (("backend", "setup", "--backend", "none"), {"ADMIN_DSN": DSN}),
        (("ingest", "--backend", "none", "-o", "dsn=postgresql://user@x/y"), {}),
        (("ingest", "--backend", "none"), {"RELAY_BACKEND_DSN": DSN}),
    ],
)
def test_no_warning_without_a_secret_in_an_argument(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    """From the environment, and for the demo's key, which everybody knows."""
    outcome = ran(*arguments, **environment)

    assert outcome.code == 1
    assert not warnings(outcome)


class Recorder(http.server.BaseHTTPRequestHandler):
    """Refuses each request, and says which key it had."""

    def do_GET(self) -> None:
        body = msgspec.json.encode({"error": f"seen {self.headers['X-API-Key'] == KEY}"})
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class has
        """Log nothing."""


@pytest.fixture
def recorder() -> Iterator[str]:
    """The URL of a server that tells whether it was sent `KEY`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, name="recorder")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.service
@pytest.mark.parametrize("place", ["option", "environment", "standard input"])
def test_key_from_a_file(tmp_path: Path, recorder: str, place: str) -> None:
    """White space around it is removed."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    given = {"option": ("--key-file", str(file)), "environment": (), "standard input": ("--key-file", "-")}[place]
    done = subprocess.run(
        [COMMAND, "history", "--url", recorder, *given],
        input=file.read_text(), text=True, capture_output=True, timeout=30, check=False,
        env=clean_environment() | ({"API_KEY_FILE": str(file)} if place == "environment" else {}),
    )  # fmt: skip

    assert done.stderr == "stream-relay: seen True\n"


def test_file_without_a_key(tmp_path: Path) -> None:
    """An unreadable or empty file is one sentence."""
    empty = tmp_path / "empty"
    empty.write_text(" \n")

    assert_one_line(ran("history", "--key-file", str(empty)), "has no key")
    assert_one_line(ran("history", "--key-file", str(tmp_path / "none")), "cannot be read: No such file")
