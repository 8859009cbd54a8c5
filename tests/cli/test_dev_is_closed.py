"""The servers of ``dev`` are closed to other accounts of the machine, whose processes share its loopback address."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pytest

from tests.cli.command import started
from tests.cli.test_dev_and_tail import children_of
from tests.clients.program import Program

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc is specific to Linux"),
]

NOBODY: Final = 65534
_ACCOUNT: Final = """
import json, os, socket, sys
path, port, user, password = json.loads(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)

def connected(family, address):
    found = socket.socket(family)
    found.settimeout(10)
    found.connect(address)
    return found

def attempt(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__

def nats():
    with connected(socket.AF_INET, ("127.0.0.1", port)) as server, server.makefile("rb") as lines:
        lines.readline()
        server.sendall(b'CONNECT {"verbose":false}\\r\\nPING\\r\\n')
        return lines.readline().decode().strip()

def readable(root):
    return [str(name) for name in os.listdir(root)]

print(json.dumps({
    "nats": attempt(nats),
    "config": attempt(lambda: open(os.path.dirname(path) + "/nats.conf").read()),
    "postgres": attempt(lambda: bool(connected(socket.AF_UNIX, path))),
    "folder": attempt(lambda: readable(os.path.dirname(path))),
}))
"""


class Demo(NamedTuple):
    """A running demo with a database."""

    program: Program
    psql: str  # the command that it prints
    socket: Path  # of PostgreSQL
    nats: "Process"
    config: dict[str, Any]  # of nats-server


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with started("dev", "--backend", "postgres-notify", "--port", "0", "--grpc-port", "0") as program:
        program.wait_for(r"^Ctrl-C stops", within_s=60)
        printed = "\n".join(program.printed)
        psql = printed[printed.index("psql ") :].split(" \\\n")[0]
        folder = Path(unquote(psql.partition("@")[2].partition("/")[0]))
        [nats] = [child for child in children(program) if child.name == "nats-server"]
        config = json.loads(Path(nats.arguments[-1]).read_text("utf-8"))
        yield Demo(program, psql, folder / ".s.PGSQL.5432", nats, config)


def test_printed_command_works(demo: Demo) -> None:
    """It can be pasted: it connects as the superuser, and needs no password."""
    done = subprocess.run(
        ["bash", "-c", f"{demo.psql} -Atc 'TABLE pg_user' | cut -d'|' -f1"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("postgres\n", "")


def test_other_accounts_have_no_access(demo: Demo) -> None:
    """Neither to NATS, though its port is open to them, nor to PostgreSQL or to any file of the demo."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another account")
    [port] = demo.nats.ports
    given = json.dumps([str(demo.socket), port, "", ""])
    done = subprocess.run(
        [sys.executable, "-c", _ACCOUNT, given], capture_output=True, text=True, timeout=30, check=True
    )  # fmt: skip

    found = json.loads(done.stdout)
    assert found["nats"] == "-ERR 'Authorization Violation'"
    assert (found["config"], found["postgres"], found["folder"]) == ("PermissionError",) * 3


def test_this_account_has_access(demo: Demo) -> None:
    """With the password of the configuration, which the demo itself uses."""
    [port] = demo.nats.ports
    login = demo.config["authorization"]
    connect = json.dumps({"verbose": False, "user": login["user"], "pass": login["password"]})
    with socket.create_connection(("127.0.0.1", port), timeout=10) as server, server.makefile("rb") as lines:
        lines.readline()
        server.sendall(f"CONNECT {connect}\r\nPING\r\n".encode())
        assert lines.readline() == b"PONG\r\n"


def test_no_secret_is_in_the_list_of_processes_or_printed(demo: Demo) -> None:
    """Files with one are for this account only."""
    password = demo.config["authorization"]["password"]
    family = [Process(str(demo.program.pid)), *children(demo.program)]
    arguments = "\n".join(" ".join(process.arguments) for process in family)

    assert len(password) == 32
    assert password not in arguments + "\n".join(demo.program.printed)
    assert stat.S_IMODE(Path(demo.nats.arguments[-1]).stat().st_mode) == 0o600


def test_servers_listen_on_no_other_port(demo: Demo) -> None:
    """No port of monitoring, and none of PostgreSQL."""
    [postgres] = [child for child in children(demo.program) if child.name == "postgres"]

    assert len(demo.nats.ports) == 1
    assert not postgres.ports


def children(program: Program) -> list["Process"]:
    return [Process(pid) for pid in children_of(program.pid)]


class Process(NamedTuple):
    """A process, as /proc shows it to every account."""

    pid: str

    @property
    def name(self) -> str:
        return (self._folder / "comm").read_text().strip()

    @property
    def arguments(self) -> list[str]:
        return (self._folder / "cmdline").read_text().split("\0")[:-1]

    @property
    def ports(self) -> list[int]:
        """The TCP ports that it listens on."""
        files = {str(file.readlink()) for file in (self._folder / "fd").iterdir()}
        rows = [line.split() for line in (self._folder / "net/tcp").read_text().splitlines()[1:]]
        return [int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in files]

    @property
    def _folder(self) -> Path:
        return Path("/proc", self.pid)
