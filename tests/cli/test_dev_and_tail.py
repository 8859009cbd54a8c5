"""``dev`` as a new user runs it, and ``tail`` against it."""

import asyncio
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import requests

from auth.key_secret import DEMO_KEY
from relay.config.settings import Settings
from relay.serve import Addresses
from rounds import Catalogue
from tests.cli.command import COMMAND, assert_one_line, run, started
from tests.clients.program import Program, clean_environment
from tests.waiting import until

_STOP_S: Final = 8.0
"""From Ctrl-C to the end: a fraction of a second for a program on an idle machine; the rest is for a busy one."""

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Run the demo; yield the URL that it prints."""
    with started("dev", "--port", "0") as program:
        [found] = program.wait_for(r"is up\s+(http://127\.0\.0\.1:\d+)")
        yield found[1]


def test_every_game_delivers_within_seconds(demo: str) -> None:
    """Each of the 14 games delivers a round within a few seconds."""
    games = sorted(Catalogue.load().slugs)
    assert len(games) == 14
    with ExitStack() as stack:
        tails = {game: stack.enter_context(started("tail", game, "-n", "1", BASE_URL=demo)) for game in games[:4]}
        for game, program in tails.items():
            [found] = program.wait_for(r"^\{.*\}$")
            assert json.loads(found[0])["game_slug"] == game
    began = time.monotonic()
    seen: set[str] = set()
    with requests.get(f"{demo}/sse", headers={"X-API-Key": "sk_live_" + "0" * 64}, stream=True, timeout=10) as response:
        for line in response.iter_lines():
            if line.startswith(b"data: "):
                seen.add(json.loads(line[6:])["game_slug"])
            if seen == set(games):
                break
    # At the demo's speed a game pauses for 3 s at most (tests/backends/file/test_recording.py); as recorded, for 30 s.
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("via", ["ws", "sse"])
def test_tail_prints_the_given_number_of_rounds(demo: str, via: str) -> None:
    """Stdout has one JSON line per round and nothing else; then the command ends."""
    outcome = run("tail", "--via", via, "-n", "3", "--url", demo)
    rounds = [json.loads(line) for line in outcome.out.splitlines()]

    assert (outcome.code, outcome.err, len(rounds)) == (0, "", 3)
    assert all(list(round_)[:2] == ["round_id", "game_slug"] for round_ in rounds)


@pytest.mark.parametrize("via", ["ws", "sse"])
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["crash", "--key", "sk_live_" + "1" * 64], "unknown"),
        (["crash", "--key", "x"], "malformed"),
        (["no-such-game"], "no-such-game"),
        (["../../healthz"], "healthz"),
    ],
)
def test_tail_that_is_refused_prints_one_line(demo: str, via: str, arguments: list[str], part: str) -> None:
    """Over each protocol, it prints the relay's sentence and does not retry."""
    outcome = run("tail", *arguments, "--via", via, "--url", demo)

    assert_one_line(outcome, part)
    assert "1111" not in outcome.err


def test_tail_stops_when_its_reader_does(demo: str) -> None:
    """``stream-relay tail | head -1`` ends without a traceback."""
    done = subprocess.run(
        ["bash", "-c", f"'{COMMAND}' tail --url {demo} | head -1"],
        env=clean_environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_tail_is_stopped_by_ctrl_c(demo: str) -> None:
    """It ends with the exit code that shells expect, and without a traceback."""
    with started("tail", "--url", demo) as program:
        program.wait_for(r"^\{")
        os.kill(program.pid, signal.SIGINT)
        assert program.wait(within_s=_STOP_S) == 130
        assert not any("Traceback" in line for line in program.printed)


def test_dev_prints_commands_that_work() -> None:
    """Every printed command prints rounds; Ctrl-C ends the demo and its nats-server."""
    with started("dev", "--port", "0") as program:
        [up] = program.wait_for(r"is up\s+(http://127\.0\.0\.1:\d+)")
        [curl] = program.wait_for(r"^\s*(curl .*)$")
        tails = program.wait_for(r"^\s*(\S+ tail .*)$", count=3)
        with Program(["bash", "-c", curl[1]]) as client:
            client.wait_for(r"^data: \{")
            for tail in tails:
                with Program(["bash", "-c", tail[1]]) as other:
                    other.wait_for(r'^\{"round_id":')
            children = children_of(program.pid)
            assert children
            os.kill(program.pid, signal.SIGINT)
            assert program.wait(within_s=_STOP_S) == 0
    assert up[1] in curl[1]
    assert [re.findall(r"--via (\w+)", tail[1]) for tail in tails] == [[], ["sse"], ["grpc"]]
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_dev_ends_with_its_nats_server() -> None:
    """When its nats-server ends, the demo reports it and stops, since it can deliver no rounds."""
    with started("dev", "--port", "0", RELAY_BACKEND_SPEED="100") as program:  # still plays the demo's recording
        program.wait_for(r"^Ctrl-C stops")
        [server] = children_of(program.pid)
        os.kill(int(server), signal.SIGKILL)
        assert program.wait(within_s=10) == 1

    assert program.printed[-1].startswith("stream-relay: the embedded nats-server ended unexpectedly")
    assert not any("Traceback" in line for line in program.printed)


def test_ctrl_c_while_dev_starts_is_quiet() -> None:
    """Ctrl-C before the relay is up prints nothing, leaves nothing behind, and is not an error."""
    for _ in range(5):
        with started("dev", "--port", "0") as program:
            children = wait_for_children(program)
            os.kill(program.pid, signal.SIGINT)
            code = program.wait(within_s=10)
        if not any("is up" in line for line in program.printed):
            break  # otherwise the demo was up before the signal: try again

    assert (code, program.printed) == (0, [])
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is specific to Linux")
def test_dev_that_is_killed_takes_its_nats_server_along() -> None:
    """``kill -9`` leaves no server running."""
    with started("dev", "--port", "0") as program:
        program.wait_for(r"^Ctrl-C stops")
        [server] = children_of(program.pid)
        end = os.pidfd_open(int(server))
        os.kill(program.pid, signal.SIGKILL)
        ended, _, _ = select.select([end], [], [], 10)
        os.close(end)

    assert ended


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Make a folder that the account of an embedded PostgreSQL can read, as the system's temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("backend", ["file", "postgres-notify"])
def test_folder_of_a_killed_dev_is_removed_by_the_next_start(public_folder: Path, backend: str) -> None:
    """``kill -9`` leaves a folder; the next demo removes it, and no folder that is in use."""
    place = {"TMPDIR": str(public_folder)}
    with started("dev", "--port", "0", "--grpc-port", "0", "--backend", backend, **place) as program:
        program.wait_for(r"^Ctrl-C stops", within_s=60)
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    left = folders_in(public_folder)
    assert left
    for folder in left:
        os.utime(folder, (time.time() + 3600,) * 2)  # too young for this one, however long it takes to start
    with started("dev", "--port", "0", "--grpc-port", "0", **place) as other:
        other.wait_for(r"^Ctrl-C stops")
        used = folders_in(public_folder) - left
        for folder in left | used:
            os.utime(folder, (0, 0))  # old enough to be removed
        with started("dev", "--port", "0", "--grpc-port", "0", **place) as program:
            program.wait_for(r"^Ctrl-C stops")
            found = folders_in(public_folder)
    assert len(used) == 1
    assert used < found
    assert not left & found
    assert not folders_in(public_folder)


def folders_in(place: Path) -> set[Path]:
    return set(place.glob("stream-relay-dev-*"))


def test_dev_reports_the_settings_that_it_ignores() -> None:
    """It has its own nats-server and keys; other settings apply."""
    given = {"RELAY_HTTP_HOST": "0.0.0.0", "RELAY_NATS_URL": "nats://elsewhere:4222", "RELAY_AUTH_KEYS": "k=sha256:0"}  # noqa: S104
    with started("dev", "--port", "0", "--grpc-port", "0", RELAY_LINKS_RETRY_MS="77", **given) as program:
        [said] = program.wait_for("ignores")
        [up] = program.wait_for(r"is up\s+(http://127\.0\.0\.1:\d+)")
        with requests.get(f"{up[1]}/sse", headers={"X-API-Key": DEMO_KEY}, stream=True, timeout=10) as stream:
            first = next(stream.iter_lines())

    assert said.string == (
        "stream-relay: dev has its own parts and ignores RELAY_AUTH_KEYS, RELAY_HTTP_HOST, RELAY_NATS_URL"
    )
    assert first == b"retry: 77"


_INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    ("arguments", "module", "status"),
    [
        (["serve"], "typer", 130),
        (["serve"], "relay.commands.root", 130),
        (["serve"], "aiohttp", 130),
        (["ingest"], "nats", 130),
        (["dev"], "typer", 0),
        (["--config", "x.toml", "dev", "--port", "0"], "relay.commands.root", 0),
        (["dev"], "relay.demo.dev", 0),
        (["tail", "dev"], "typer", 130),
        (["tail", "crash"], "uvloop", 130),
        (["config"], "pydantic_settings", 130),
        (["key", "new"], "auth.key_forms", 130),
    ],
)
def test_ctrl_c_in_an_import_is_quiet(tmp_path: Path, arguments: list[str], module: str, status: int) -> None:
    """Ctrl-C during the imports, which take the first tenths of a second, prints nothing."""
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPTED_IMPORT)
    outcome = run(*arguments, PYTHONPATH=str(tmp_path), INTERRUPT_AT=module)

    assert outcome == (status, "", "")


def test_make_run_is_quiet_when_it_is_stopped_early() -> None:
    """Ctrl-C goes to make too, as from a terminal, while the demo starts; make reports no error."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")
    command = [make, "--no-print-directory", "-o", ".venv/.ready", f"BIN={Path(COMMAND).parent}", "run"]
    for _ in range(5):
        with Program(
            command, cwd=Path(__file__).parents[2], env={"RELAY_HTTP_PORT": "0", "RELAY_GRPC_PORT": "0"}
        ) as program:
            grandchildren = wait_for_children(program, generation=2)
            os.killpg(program.pid, signal.SIGINT)
            program.wait(within_s=10)
        if not any("is up" in line for line in program.printed):
            break  # otherwise the demo was up before the signal: try again

    assert program.printed == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in grandchildren)


def wait_for_children(program: Program, *, generation: int = 1) -> list[str]:
    """Wait until a program has started children; with `generation` 2, until these have."""

    def found() -> list[str]:
        pids = [str(program.pid)]
        for _ in range(generation):
            pids = [child for pid in pids for child in children_of(int(pid))]
        return pids

    return asyncio.run(until(found))


def children_of(pid: int) -> list[str]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return re.findall(r"\d+", found.stdout)


@pytest.mark.parametrize(
    ("port", "sections", "expected"),
    [
        (50051, {}, "grpc://127.0.0.1:50051"),
        (50051, {"grpc": {"tls_cert_file": "a.pem", "tls_key_file": "a.key"}}, "grpcs://127.0.0.1:50051"),
        (0, {"http": {"h2c": True}}, "grpc://127.0.0.1:8080"),
        (0, {}, None),
    ],
)
def test_dev_prints_where_grpc_is(port: int, sections: dict[str, Any], expected: str | None) -> None:
    """Also on the HTTP port, or with TLS; nothing where it is off."""
    from relay.demo.dev import _grpc_url

    async def ready() -> None:
        """Be ready."""

    assert _grpc_url(Settings(**sections), Addresses("http://127.0.0.1:8080", port, ready)) == expected
