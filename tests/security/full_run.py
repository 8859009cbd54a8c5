"""A full run of real processes with known secrets: NATS with accounts, ingest, the admin API and a relay.

All of them log at debug. Keys are in NATS, in the environment and in a file; tokens are signed with a key in PEM; an
identity provider signs users in.

To search a new kind of secret, add it to `FullRun.secrets` where it is made, and use it in a step of
`tests.security.test_secrets`. What a process prints, serves, stores or is started with is searched without more.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth.key_secret import generate
from tests.auth.identity.provider import AUDIENCE, ISSUER, Provider, private_key
from tests.backends.file.replaying import jsonl, round_at
from tests.cli.command import COMMAND
from tests.cli.command import run as run_command
from tests.clients.program import Program
from tests.relay.http.tokens.test_identity_provider import KeyServer
from tests.relay.serving import Serving, serving
from tests.security.accounts import ACCOUNTS, PASSWORDS, server_of
from tests.security.known_secrets import KnownSecrets

if TYPE_CHECKING:
    from tests.nats import NatsServer

SECRET: Final = r"[sp]k_(?:live|test)_[0-9a-f]{64}"
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
        self.admin: Program
        self.admin_url = ""
        self.admin_secret = ""
        self.partner_key = ""
        """Of the store in NATS."""
        self.provider = Provider(p1=private_key())
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

    async def command(self, *words: str, makes: str | None = None, **more: str) -> str:
        """Run a command of administration; return what it printed, or the secret that it `makes`, a pattern."""
        environment = {"RELAY_NATS_URL": self.nats.url, **self.settings_of("admin"), **more}
        outcome = await asyncio.to_thread(run_command, *words, **environment)
        assert outcome.code == 0, outcome
        name, printed = f"stream-relay {' '.join(words)}", outcome.out
        if makes is not None:  # it is shown once
            [secret] = re.findall(makes, printed)
            printed = printed.replace(self.secrets.add(f"the secret of {name}", secret), "", 1)
        self.received.append((name, f"{printed}\n{outcome.err}".encode()))
        return printed if makes is None else str(secret)

    def identity(self, name: str, **claims: object) -> str:
        """Make a JWT of the identity provider and add it to the secrets."""
        return self.secrets.add(name, self.provider.token(**claims))  # type: ignore[arg-type]

    def write_input(self, name: str, text: str) -> Path:
        """Write a file with secrets for a process."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        self.inputs.add(path)
        return path

    def printed(self) -> list[tuple[str, str]]:
        """Return what the processes have printed; complete once they have ended."""
        return [
            ("relay's log", "\n".join(self.relay.printed)),
            ("ingest's log", "\n".join(self.ingest.printed)),
            ("admin API's log", "\n".join(self.admin.printed)),
        ]

    def command_lines(self, *more: int) -> list[tuple[str, bytes]]:
        """Return the command line of each process of ours, as every user of the machine sees it; `more`: other ones."""
        groups = {os.getpgid(pid) for pid in (self.relay.pid, self.ingest.pid, self.admin.pid, *more)}
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
    signing_key = run.write_input("token.pem", _signing_key(run.secrets))
    temporary = {"TMPDIR": str(folder)}
    try:
        run.admin_secret = await run.command("admin", "create", "ops", makes=r"admin_[0-9a-f]{64}")
        run.partner_key = await run.command("key", "create", "partner", "--name", "Partner", makes=SECRET)
        run.admin = Program(
            [COMMAND, "admin", "serve", "--port", "0"],
            cwd=folder,
            env={"RELAY_NATS_URL": run.nats.url, **temporary, **run.settings_of("admin")},
        )
        [found] = await asyncio.to_thread(
            run.admin.wait_for, r"(?=.*admin_listening).*(?P<url>http://127\.0\.0\.1:\d+)"
        )
        run.admin_url = found["url"]
        run.ingest = Program(
            [COMMAND, "ingest"],
            cwd=folder,
            env={f"RELAY_BACKEND_{name}": value for name, value in backend.items()}
            | {"RELAY_NATS_URL": run.nats.url, "RELAY_INGEST_PORT": "0", **temporary, **run.settings_of("ingest")},
        )
        async with (
            KeyServer(run.provider) as key_server,
            serving(
                run.nats.url,
                settings=run.settings_of("relay") | temporary,
                RELAY_NATS_CREATE="false",
                RELAY_AUTH_KEYS_FILE=str(keys),
                RELAY_AUTH_STORE="nats",
                RELAY_AUTH_TOKEN_KEY_FILES=f"2026:{signing_key}",
                RELAY_AUTH_TOKEN_SIGNING_ID="2026",
                RELAY_IDENTITY_JWKS_URL=key_server.url,
                RELAY_IDENTITY_ISSUER=ISSUER,
                RELAY_IDENTITY_AUDIENCE=AUDIENCE,
                RELAY_USAGE_INTERVAL_S="1",
            ) as run.relay,
        ):
            run.secrets.add("the private key", run.relay.key)
            run.secrets.add("the token secret", run.relay.token_secrets.partition(":")[2])
            yield run
    finally:
        for program in ("ingest", "admin"):
            if hasattr(run, program):
                await asyncio.to_thread(getattr(run, program).stop)
        await run.nats.kill()


def _signing_key(known: KnownSecrets) -> str:
    """Make a key that signs tokens; return it in PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    known.add("the signing key, in PEM", "".join(pem.splitlines()[1:-1]))
    known.add("the signing key, in hex", key.private_bytes_raw().hex())
    return pem


def _keys_file(stored: str) -> str:
    origins = json.dumps(["https://example.com"])
    return f'[keys.web]\nhash = "{stored}"\nkind = "public"\nallowed_origins = {origins}\n'
