"""Signing keys are replaced while two relays serve clients: none of them is refused."""

import asyncio
import secrets
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth.key_secret import generate
from relay.config.sections import AuthSettings
from relay.config.token_keys import TokenKeys
from tests.nats import NatsServer
from tests.relay.serving import Serving, serving
from tests.waiting import until

_CLIENTS = 4


def entry(name: str) -> str:
    return f"{name}:{secrets.token_hex(32)}"


def put(path: Path, text: str) -> None:
    """Replace a file as a whole, as deployments do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


class Load:
    """Clients that get a token from one relay and open an event stream on the other, again and again."""

    def __init__(self, relays: list[Serving], key: str) -> None:
        self._relays = relays
        self._key = key
        self.opened = 0
        self.refused: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(_CLIENTS)]

    async def more(self) -> None:
        """Wait until each client has finished what it was doing, and something after it."""
        at = self.opened + 3 * _CLIENTS
        await until(lambda: self.opened >= at or bool(self.refused))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _run(self, number: int) -> None:
        async with aiohttp.ClientSession() as client:
            while True:
                one, other = self._relays[number % 2].url, self._relays[1 - number % 2].url
                async with client.post(f"{one}/api/auth/token", headers={"X-API-Key": self._key}) as answer:
                    token = (await answer.json()).get("token", "")
                address = f"{other}/sse/crash?to=2020-01-01T00:00:00Z"
                async with client.get(address, params={"token": token}) as answer:
                    if answer.status != 200:
                        self.refused.append(await answer.text())
                self.opened += 1
                number += 1


@pytest.mark.service
async def test_rotation_refuses_no_client(nats: NatsServer, tmp_path: Path) -> None:
    """Add, promote, remove: a secret in a file that both relays follow, without a restart; then to a key in PEM."""
    file, pem = tmp_path / "secrets", tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    pem.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    old, new = entry("old"), entry("new")
    put(file, old)
    key, stored = generate("private")
    limits = "limits.requests_per_min=1000000 limits.links_per_s=1000000 limits.links=10000"
    settings = {
        "RELAY_AUTH_KEYS": f"k={stored} {limits}",
        "RELAY_AUTH_TOKEN_SECRETS": "",
        "RELAY_AUTH_TOKEN_SECRETS_FILE": str(file),
        "RELAY_AUTH_TOKEN_KEY_FILES": f"pem:{pem}",
        "RELAY_LOG_FORMAT": "json",
    }
    async with serving(nats.url, settings=settings) as one, serving(nats.url, settings=settings) as other:
        load = Load([one, other], key)
        load.start()
        try:
            for text, loaded in (
                (f"{old}\n{new}\n", r'"signing": ?"old".*"new"'),
                (f"# promoted\n{new},{old}\n", r'"signing": ?"new".*"old"'),
                (f"{new}\n", r'"signing": ?"new", ?"verifying": ?\["new", ?"pem"\]'),
            ):
                await load.more()
                put(file, text)
                await asyncio.gather(one.logged(loaded), other.logged(loaded))
            await load.more()
        finally:
            await load.stop()
        assert load.refused == []
        put(file, "half of an ent")
        await one.logged("token_keys_refused")
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{one.url}/api/auth/token", headers={"X-API-Key": key}) as answer,
        ):
            assert answer.status == 200
    for relay in (one, other):
        printed = "\n".join(relay.printed)
        assert old.partition(":")[2] not in printed
        assert new.partition(":")[2] not in printed


def test_signing_key_can_be_named(tmp_path: Path) -> None:
    """A key file signs in place of the secrets before these are removed; the files are read again on request."""
    pem, file = tmp_path / "key.pem", tmp_path / "secrets"
    private = ec.generate_private_key(ec.SECP256R1())
    pem.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.write_text(entry("k1"))
    settings = AuthSettings(token_secrets_file=file, token_key_files=f"a1:{pem}", token_signing_id="a1")
    keys = TokenKeys(settings)

    assert keys.signer.keys.signing_id == "a1"
    assert [key["kid"] for key in keys.signer.keys.public()] == ["a1"]
    file.write_text(entry("k2"))
    keys.reload()
    assert sorted(keys.signer.keys.by_id) == ["a1", "k2"]
    pem.write_text("x")
    keys.reload()
    assert sorted(keys.signer.keys.by_id) == ["a1", "k2"]
