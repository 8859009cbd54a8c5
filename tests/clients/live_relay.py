"""A real relay for clients: ``stream-relay dev`` as a user runs it, on its own port."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from auth.key_secret import DEMO_KEY
from tests.clients.program import Program
from tests.network.ports import HeldPort

_COMMAND: Final = str(Path(sys.executable).with_name("stream-relay"))


class LiveRelay:
    """A running demo on a held port. `restart` starts another one on the same port, with an empty log."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = {"RELAY_GRPC_PORT": "0"} | dict(settings)
        self.key = DEMO_KEY
        """The demo's; with a recording of the test another one at each start."""
        self._held = HeldPort()
        self._start()

    def _start(self) -> None:
        self._program = Program([_COMMAND, "dev", "--port", str(self._held.number)], env=self._settings)
        try:
            [up] = self._program.wait_for(r"is up\s+(http://127\.0\.0\.1:(\d+))")
            self.url, self.port = up[1], int(up[2])
            if "RELAY_BACKEND_PATH" in self._settings:
                [found] = self._program.wait_for(r"export API_KEY=(\S+)")
                self.key = found[1]
            self._wait_until_ready()
        except BaseException:
            self._program.stop()
            raise

    def _wait_until_ready(self) -> None:
        """Poll ``/readyz``: the address is printed a moment before the relay is ready."""
        until_200 = Retry(total=100, backoff_factor=0.01, backoff_max=0.2, status_forcelist=[503])
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=until_200))
            session.get(f"{self.url}/readyz", timeout=10).raise_for_status()

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def token(self) -> str:
        """A fresh stream token."""
        answer = requests.post(f"{self.url}/api/auth/token", headers={"X-API-Key": self.key}, timeout=10)
        return str(answer.json()["token"])

    def wait_for(self, pattern: str, *, within_s: float = 30.0) -> None:
        """Wait until the relay logs a line that matches."""
        self._program.wait_for(pattern, within_s=within_s)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the samples read."""
        return {"BASE_URL": self.url, "API_KEY": self.key}

    def adapted(self, text: str) -> str:
        """Return a command or program of the documentation with the address and the key of this relay."""
        text = text.replace("http://127.0.0.1:8080", self.url).replace(DEMO_KEY, self.key)
        for spelt in ('"sk_live_" + "0" * 64', "'sk_live_' + '0'.repeat(64)"):
            text = text.replace(spelt, repr(self.key))
        return text

    @property
    def resident_bytes(self) -> int:
        """Current memory of the relay's process."""
        pages = int(Path(f"/proc/{self._program.pid}/statm").read_text("ascii").split()[1])
        return pages * 4096

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        """Stop it as Ctrl-C does. It must end by itself, in any state of its clients."""
        code = self._program.stop()
        assert code == 0, f"the relay ended with code {code}; it printed: {self._program.printed[-20:]}"


@contextmanager
def live_relay(settings: Mapping[str, str] | None = None) -> Iterator[LiveRelay]:
    """Run a relay while the block runs; `settings` are ``RELAY_...`` variables."""
    relay = LiveRelay(settings or {})
    try:
        yield relay
    finally:
        relay.stop()
