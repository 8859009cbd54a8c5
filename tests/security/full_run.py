"""A full run of real processes with known secrets: NATS with accounts, ingest and a relay that log at debug.

To search a new kind of secret, add it to `FullRun.secrets` where it is made, and use it in a step of
`tests.security.test_secrets`. What a process prints, serves, stores or is started with is searched without more.
"""

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from auth.key_secret import generate
from tests.backends.file.replaying import jsonl, round_at
from tests.cli.command import COMMAND
from tests.clients.program import Program
from tests.relay.serving import Serving, serving
from tests.security.accounts import ACCOUNTS, PASSWORDS, server_of
from tests.security.known_secrets import KnownSecrets

if TYPE_CHECKING:
    from tests.nats import NatsServer

_DEBUG: Final = {"RELAY_LOG_LEVEL": "debug", "RELAY_LOG_FORMAT": "json"}


class FullRun:
    """The processes of a run, its secrets, and what its clients got."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = KnownSecrets()
        self.passwords = {name: self.secrets.add(f"{name} of NATS", f"p{secrets.token_hex(24)}") for name in PASSWORDS}
        self.public_key, self.stored_public_key = generate("public")
        self.secrets.add("the public key", self.public_key)
        self.received: list[tuple[str, bytes]] = []
        """What clients got, by what they asked for. Without tokens that were issued to them."""
        self.relay: Serving
        self.nats: NatsServer
        self.ingest: Program
        self.inputs: set[Path] = set()
        """Files with secrets that the processes are given."""

    def settings_of(self, user: str) -> dict[str, str]:
        """Return the settings with which a process signs in to NATS."""
        password = self.passwords[f"{user.upper()}_PASSWORD"]
        return {"RELAY_NATS_USER": user, "RELAY_NATS_PASSWORD": password, **_DEBUG}

    async def token(self, key: str, *, name: str, headers: Mapping[str, str] | None = None) -> str:
        """Get a token and add it to the secrets."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.relay.url}/api/auth/token", headers={"X-API-Key": key, **(headers or {})}) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return self.secrets.add(name, str((await answer.json())["token"]))

    def write_input(self, name: str, text: str) -> Path:
        """Write a file with secrets for a process."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        self.inputs.add(path)
        return path

    def printed(self) -> list[tuple[str, str]]:
        """Return what the processes have printed; complete once they have ended."""
        return [("relay's log", "\n".join(self.relay.printed)), ("ingest's log", "\n".join(self.ingest.printed))]

    def command_lines(self, *more: int) -> list[tuple[str, bytes]]:
        """Return the command line of each process of ours, as every user of the machine sees it; `more`: other ones."""
        groups = {os.getpgid(pid) for pid in (self.relay.pid, self.ingest.pid, *more)}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                if int(path.parent.name) == self.nats.pid or os.getpgid(int(path.parent.name)) in groups:
                    found.append((str(path), path.read_bytes()))
        return found


@asynccontextmanager
async def full_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FullRun]:
    """Start it; when the block ends, end the processes."""
    run = FullRun(folder)
    for name, value in run.passwords.items():
        monkeypatch.setenv(name, value)
    (store := folder / "nats").mkdir()
    run.nats = server_of(store, text=ACCOUNTS)
    await run.nats.start()
    recording = folder / "rounds.jsonl"
    recording.write_bytes(b"no round\n" + jsonl([round_at(number) for number in range(40)]))
    backend = {"NAME": "file", "PATH": str(recording), "LOOP": "true", "REJECTS_FILE": str(folder / "rejects.jsonl")}
    keys = run.write_input("keys.toml", _keys_file(run.stored_public_key))
    temporary = {"TMPDIR": str(folder)}
    try:
        run.ingest = Program(
            [COMMAND, "ingest"],
            cwd=folder,
            env={f"RELAY_BACKEND_{name}": value for name, value in backend.items()}
            | {"RELAY_NATS_URL": run.nats.url, "RELAY_INGEST_PORT": "0", **temporary, **run.settings_of("ingest")},
        )
        async with serving(
            run.nats.url,
            settings=run.settings_of("relay") | temporary,
            RELAY_NATS_CREATE="false",
            RELAY_AUTH_KEYS_FILE=str(keys),
        ) as run.relay:
            run.secrets.add("the private key", run.relay.key)
            run.secrets.add("the token secret", run.relay.token_secrets.partition(":")[2])
            yield run
    finally:
        if hasattr(run, "ingest"):
            await asyncio.to_thread(run.ingest.stop)
        await run.nats.kill()


def _keys_file(stored: str) -> str:
    origins = json.dumps(["https://example.com"])
    return f'[keys.web]\nhash = "{stored}"\nkind = "public"\nallowed_origins = {origins}\n'
