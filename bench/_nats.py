"""A real nats-server for one benchmark: own port, own store, killable like a crash and restartable on both."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Self

_START_S: Final = 10.0
_POLL_S: Final = 0.002


class NatsServer:
    """One nats-server with JetStream in file storage: started on entry; on exit killed, and its files are removed."""

    def __init__(self, *, threads: int | None = None) -> None:
        """`threads`: how many run Go code; by default one for each core that the process may use."""
        self._threads = threads
        self._store = Path(tempfile.mkdtemp(prefix="stream-relay-bench-"))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._store, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, "nats-server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start on the same port and store each time; return when it accepts clients."""
        program = Path(sys.executable).with_name("nats-server")
        command = [str(program) if program.exists() else "nats-server", "-a", "127.0.0.1", "-p", str(self.port)]
        command += ["-js", "-sd", str(self._store / "jetstream"), "-l", str(self._store / "log")]
        threads = {} if self._threads is None else {"GOMAXPROCS": str(self._threads)}
        self._process = subprocess.Popen(command, env=os.environ | threads)
        deadline = time.monotonic() + _START_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(
                    f"nats-server did not start: {(self._store / 'log').read_text('utf-8', 'replace')[-500:]}"
                )
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End it with SIGKILL: it closes no connection and flushes nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False
