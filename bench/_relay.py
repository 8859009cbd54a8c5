"""``stream-relay serve`` as a process of its own, on a free port, with one key."""

import fcntl
import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench._process import cpu_s

_READY_S: Final = 15.0
_POLL_S: Final = 0.002
_STOP_S: Final = 10.0
_PIPE_BYTES: Final = 4096
_OUTPUT_BYTES: Final = 1 << 16
"""What a relay prints while it starts is less."""
_NO_LIMITS: Final = {
    f"RELAY_LIMITS_{name}": "0"
    for name in (
        "PRIVATE_REQUESTS_PER_MIN",
        "PRIVATE_LINKS",
        "PRIVATE_LINKS_PER_S",
        "ADDRESS_LINKS",
        "ADDRESS_LINKS_PER_S",
        "REPLAYS",
        "LOG_ROUNDS_PER_MIN",
        "SUBSCRIBES_PER_MIN",
        "FILTERS",
    )
}
"""A benchmark is one client with one key, and sends all that it can."""


@dataclass(frozen=True, slots=True)
class RelayProcess:
    """The address of a running relay, and a key for it."""

    pid: int
    port: int
    key: str
    ready_s: float
    """Seconds from starting the process to the first 200 of ``/readyz``."""
    output: int
    """The file descriptor to read the pipe with its output from, if it was started with one."""
    grpc_port: int
    """0 when its output goes to that pipe, or does not have it: it is from there."""
    ready_cpu_s: float = 0.0
    """Its CPU seconds until then."""

    def token(self) -> str:
        """Get a fresh stream token; it opens any number of links for 30 s."""
        return self.tokens(1)[0]

    def tokens(self, count: int) -> list[str]:
        """Get so many, over one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        found = []
        for _ in range(count):
            connection.request("POST", "/api/auth/token", headers={"X-API-Key": self.key})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert answer.status == 200, body
            found.append(str(body["token"]))
        connection.close()
        return found


@contextmanager
def relay(
    nats_url: str, unread: bool = False, /, *, more_keys: str = "", source: str = "", **settings: str
) -> Iterator[RelayProcess]:
    """Run a relay until the block ends.

    Args:
        nats_url: Its log.
        unread: Its output goes to a pipe of the smallest size that Linux has, which the caller reads, or does not.
        more_keys: Keys that it also accepts, in the one-line form.
        source: A checkout whose code runs; by default that which is installed.
        settings: Environment variables, added to those that it needs to run.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    key = f"sk_live_{secrets.token_hex(32)}"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RELAY_") and name != "PORT"
    }
    environment |= {
        "RELAY_HTTP_HOST": "127.0.0.1",
        "RELAY_HTTP_PORT": str(port),
        "RELAY_GRPC_PORT": "0",
        "RELAY_NATS_URL": nats_url,
        "RELAY_AUTH_KEYS": f"bench=sha256:{hashlib.sha256(key.encode()).hexdigest()};{more_keys}".rstrip(";"),
        "RELAY_AUTH_TOKEN_SECRETS": f"bench:{secrets.token_hex(32)}",
        "RELAY_DRAIN_GRACE_S": "0",
        "RELAY_LOG_FORMAT": "json",
        **_NO_LIMITS,
        **settings,
    }
    command = [str(Path(sys.executable).with_name("stream-relay"))]
    if source:
        command = [sys.executable, "-m", "stream_relay"]
        environment["PYTHONPATH"] = source
    started = time.monotonic()
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, after the process
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    log = writes if unread else output.fileno()
    process = subprocess.Popen([*command, "serve"], env=environment, stdout=log, stderr=log, cwd=source or None)
    os.close(writes)
    try:
        if not _ready(process, port, started + _READY_S):
            output.seek(0)
            raise SystemExit(f"stream-relay serve did not get ready: {output.read().decode(errors='replace')[-1000:]}")
        ready_s, ready_cpu_s = time.monotonic() - started, cpu_s(process.pid)
        yield RelayProcess(
            process.pid,
            port,
            key,
            ready_s,
            reads,
            0 if unread or not _is_shown(settings) else _grpc_port(log),
            ready_cpu_s,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.close()
        os.close(reads)


def _is_shown(settings: Mapping[str, str]) -> bool:
    """Whether the relay logs where it listens."""
    return settings.get("RELAY_LOG_LEVEL", "info") in ("debug", "info")


def _grpc_port(output: int) -> int:
    """Return the port that a relay logged when it began to listen."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:  # a thread of the relay writes it
        for line in os.pread(output, _OUTPUT_BYTES, 0).splitlines():  # where the relay writes does not change
            if b'"relay_listening"' in line:
                return int(json.loads(line)["grpc_port"])
        time.sleep(_POLL_S)
    raise SystemExit("stream-relay serve did not log where it listens")


def _ready(process: subprocess.Popen[bytes], port: int, deadline: float) -> bool:
    """Poll until the relay is ready; False when it ends, or the deadline passes, before that."""
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return True
        except OSError:
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(_POLL_S)
    return False
