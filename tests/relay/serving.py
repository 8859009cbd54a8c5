"""``stream-relay serve`` as an operator runs it: a process with its own key and token secret."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from auth.key_secret import generate
from tests.clients.program import Program
from tests.relay.conftest import wait_ready
from tests.signals import freeze

COMMAND: Final = str(Path(sys.executable).with_name("stream-relay"))
SETTINGS: Final = {"RELAY_HTTP_HOST": "127.0.0.1", "RELAY_HTTP_PORT": "0", "RELAY_GRPC_PORT": "0"}


class Serving:
    """A running relay process."""

    token_secrets: Final = f"t:{secrets.token_hex(32)}"

    def __init__(self, nats_url: str, settings: dict[str, str], *, ulimit: str | None) -> None:
        self.key, self.stored_key = generate("private")
        command = [COMMAND, "serve"]
        if ulimit is not None:
            command = ["sh", "-c", f'ulimit {ulimit} && exec "$@"', "sh", *command]
        self._program = Program(
            command,
            env=SETTINGS
            | {
                "RELAY_NATS_URL": nats_url,
                "RELAY_AUTH_KEYS": f"k={self.stored_key}",
                "RELAY_AUTH_TOKEN_SECRETS": self.token_secrets,
            }
            | settings,
        )
        self.url, self.grpc_port = "", 0

    @property
    def pid(self) -> int:
        return self._program.pid

    @property
    def printed(self) -> list[str]:
        """All lines it has printed; complete after it has ended."""
        return self._program.printed

    async def listening(self) -> None:
        """Wait until it listens; set `url` and `grpc_port`."""
        pattern = r"(?=.*relay_listening)(?=.*grpc_port\W+(?P<port>\d+)).*(?P<url>http://127\.0\.0\.1:\d+)"
        [found] = await asyncio.to_thread(self._program.wait_for, pattern)
        self.url, self.grpc_port = found["url"], int(found["port"])

    async def logged(self, pattern: str) -> None:
        """Wait until it logs a line that matches."""
        await asyncio.to_thread(self._program.wait_for, pattern)

    def freeze(self) -> None:
        """Stop it until SIGCONT, as a suspend or a live migration does."""
        freeze(self._program.pid)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._program.pid, number)

    async def exit_code(self, *, within_s: float = 30) -> int:
        """Wait until it has ended."""
        return await asyncio.to_thread(self._program.wait, within_s=within_s)

    def stop(self) -> int:
        """End it as Ctrl-C does, and by force after a deadline."""
        return self._program.stop()


@asynccontextmanager
async def serving(
    nats_url: str,
    *,
    ready: bool = True,
    ulimit: str | None = None,
    settings: Mapping[str, str] | None = None,
    **more: str,
) -> AsyncIterator[Serving]:
    """Run a relay process with settings (``RELAY_...``); without `ready` it is yielded when it listens.

    `ulimit`: arguments of the shell command, for other limits of the process.
    """
    relay = Serving(nats_url, {**(settings or {}), **more}, ulimit=ulimit)
    try:
        await relay.listening()
        if ready:
            await wait_ready(relay.url)
        yield relay
    finally:
        await asyncio.to_thread(relay.stop)
