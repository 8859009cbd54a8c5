"""``dev`` with a source of the user: a key that nobody knows, and answers for this machine's own pages only."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from auth.key_secret import DEMO_KEY
from backends.recordings import bundled
from tests.cli.command import started
from tests.clients.program import Program

pytestmark = pytest.mark.service


class Demo(NamedTuple):
    """A running demo."""

    url: str
    key: str
    printed: list[str]

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=10)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo of rounds of the user's."""
    recording = tmp_path_factory.mktemp("own") / bundled().name
    recording.write_bytes(bundled().read_bytes())
    settings = {"RELAY_BACKEND_PATH": str(recording), "RELAY_BACKEND_LOOP": "true", "RELAY_BACKEND_SPEED": "100"}
    with started("dev", "--port", "0", "--grpc-port", "0", RELAY_BACKEND_SHIFT_TO_NOW="true", **settings) as program:
        yield demo_of(program)


@pytest.fixture(scope="module")
def plain() -> Iterator[Demo]:
    """A demo of the bundled recording."""
    with started("dev", "--port", "0", "--grpc-port", "0") as program:
        yield demo_of(program)


def demo_of(program: Program) -> Demo:
    [up] = program.wait_for(r"is up\s+(http://127\.0\.0\.1:\d+)")
    [key] = program.wait_for(r"the demo's key:\s+(\S+)")
    program.wait_for(r"^Ctrl-C stops")
    return Demo(up[1], key[1], program.printed)


def test_key_of_the_users_rounds_is_random(own: Demo, plain: Demo) -> None:
    """The demo's key, which everybody knows, opens only the demo's rounds."""
    assert own.key != plain.key == DEMO_KEY
    for demo, key, status in ((own, own.key, 200), (own, DEMO_KEY, 401), (plain, DEMO_KEY, 200), (plain, own.key, 401)):
        assert demo.get("/api/games", **{"X-API-Key": key}).status_code == status
    assert own.key not in own.get("/").text


def test_printed_commands_work(own: Demo) -> None:
    """After the first one, which sets the key; the key is an argument of none."""
    lines = [line.strip() for line in own.printed]
    [export] = [line for line in lines if line.startswith("export ")]
    [curl] = [line for line in lines if line.startswith("curl ")]
    tails = [line for line in lines if " tail " in line]
    assert not any(own.key in line for line in (curl, *tails))
    for command, pattern in ((curl, r"^data: \{"), *((tail, r'^\{"round_id":') for tail in tails)):
        with Program(["bash", "-c", f"{export}; {command}"]) as client:
            client.wait_for(pattern)
            os.kill(client.pid, signal.SIGINT)


@pytest.mark.parametrize("path", ["/api/games", "/", "/metrics", "/readyz", "/nowhere", "/ws/crash"])
def test_other_hosts_are_refused(own: Demo, plain: Demo, path: str) -> None:
    """A page whose name an attacker's DNS resolves to this machine gets nothing, whatever key it has."""
    for demo in (own, plain):
        answer = demo.get(path, Host=f"evil.example:{demo.port}", **{"X-API-Key": demo.key})
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected")
        assert "evil.example" in answer.json()["error"]
        for host in (f"localhost:{demo.port}", f"[::1]:{demo.port}", "127.0.0.1:9"):
            assert demo.get(path, Host=host, **{"X-API-Key": demo.key}).status_code != 421


def test_pages_of_other_origins_are_refused(own: Demo, plain: Demo) -> None:
    """Those of files and of sandboxed frames too; the demo's own rounds are for every page."""
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost:8000", 200),
        ("http://127.0.0.1:8000", 200),
        ("http://[::1]:8000", 200),
    ):
        answer = own.get("/api/games", Origin=origin, **{"X-API-Key": own.key})
        assert (origin, answer.status_code) == (origin, status)
        assert plain.get("/api/games", Origin=origin, **{"X-API-Key": plain.key}).status_code == 200


def test_it_listens_on_loopback_only(own: Demo) -> None:
    """Whatever is set."""
    [row] = [
        line.split()
        for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        if int(line.split()[1].partition(":")[2], 16) == int(own.port) and line.split()[3] == "0A"
    ]
    assert row[1].startswith("0100007F:")
