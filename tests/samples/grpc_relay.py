"""``stream-relay dev`` for the gRPC samples, with HTTP and gRPC ports that a restart keeps."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from auth.key_secret import DEMO_KEY
from backends.recordings import bundled
from tests.clients.program import Program
from tests.network.ports import HeldPort

_COMMAND: Final = str(Path(sys.executable).with_name("stream-relay"))
_SPEED: Final = 400
"""Multiple of the original cadence: a round of `crash` about every 40 ms."""


class GrpcRelay:
    """A running demo at high speed."""

    def __init__(self) -> None:
        self._held, self._held_grpc = HeldPort(), HeldPort()
        self.port, self.grpc_port = self._held.number, self._held_grpc.number
        self._program: Program | None = None
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the samples."""
        return self.environment_at(self.grpc_port)

    def environment_at(self, port: int) -> dict[str, str]:
        """The environment that makes a sample connect to another port."""
        return {"GRPC_URL": f"127.0.0.1:{port}", "API_KEY": DEMO_KEY}

    def start(self) -> None:
        settings = {
            "RELAY_GRPC_PORT": str(self.grpc_port),
            "RELAY_BACKEND_NAME": "file",
            "RELAY_BACKEND_PATH": str(bundled()),
            "RELAY_BACKEND_LOOP": "true",
            "RELAY_BACKEND_SHIFT_TO_NOW": "true",
            "RELAY_BACKEND_SPEED": str(_SPEED),
        }
        self._program = Program([_COMMAND, "dev", "--port", str(self.port)], env=settings)
        try:
            self._program.wait_for(r"is up")
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the demo as Ctrl-C does; do nothing when it is not running."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def rounds(self, game: str) -> list[int]:
        """Return the ids of a game's last rounds, oldest first."""
        answer = requests.get(
            f"http://127.0.0.1:{self.port}/api/history/{game}?limit=1000", headers={"X-API-Key": DEMO_KEY}, timeout=10
        )
        return [round_["round_id"] for round_ in reversed(answer.json())]

    def _wait_until_ready(self) -> None:
        until_200 = Retry(total=100, backoff_factor=0.01, backoff_max=0.2, status_forcelist=[503])
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=until_200))
            session.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10).raise_for_status()


@contextmanager
def grpc_relay() -> Iterator[GrpcRelay]:
    """Run a relay while the block runs."""
    relay = GrpcRelay()
    try:
        yield relay
    finally:
        relay.stop()
