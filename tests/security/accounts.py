"""nats-server with the accounts of infra/, and clients that try what its users may not do."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from roundlog.log_settings import LogSettings
from tests.clients.tools import ROOT
from tests.nats import NatsServer

PASSWORDS: Final = {
    f"{user.upper()}_PASSWORD": f"of-{user}" for user in ("relay", "ingest", "admin", "operator", "route")
}
ACCOUNTS: Final = (ROOT / "infra/nats-accounts.conf").read_text("utf-8")

# What the tests add to the file: operators who see and edit everything in the account of the log and in that of keys,
# and a user of the relays' account without permissions of its own, for whom only the accounts hold.
_OPERATOR: Final = "{ user: operator, password: $OPERATOR_PASSWORD }"
_ADDED: Final = {
    f"# For the nats tool, when you edit a stream: {_OPERATOR}": _OPERATOR,
    "  KEYS {\n": "  KEYS {\n    users: [{ user: keeper, password: of-keeper }]\n",
    "    users: [\n      { user: relay,": (
        "    users: [\n      { user: greedy, password: of-greedy }\n      { user: relay,"
    ),
}


def accounts(*, added: Mapping[str, str] = _ADDED) -> str:
    """Return nats-accounts.conf with the users of the tests."""
    text = ACCOUNTS
    for old, new in added.items():
        assert text.count(old) == 1, f"nats-accounts.conf has no {old!r}"
        text = text.replace(old, new)
    return text


def server_of(store: Path, page: str = "nats.conf", *, text: str | None = None) -> NatsServer:
    """Prepare a server with a configuration file of infra/; `text` replaces that of the accounts."""
    (store / "nats-accounts.conf").write_text(accounts() if text is None else text)
    config = (ROOT / "infra" / page).read_text("utf-8")
    for of_infra, of_tests in (('"127.0.0.1:8222"', '"127.0.0.1:-1"'), ("/data", f'"{store}/jetstream"')):
        assert of_infra in config
        config = config.replace(of_infra, of_tests)
    return NatsServer(store, config=config, jetstream=False)


def log_of(server: NatsServer, user: str, **more: object) -> LogSettings:
    """Return the settings with which a process of ours signs in as `user`."""
    return LogSettings.model_validate({"url": server.url, "user": user, "password": f"of-{user}", **more})


class Attacker:
    """A client that signs in as one of the users, and keeps what it gets and what it is refused."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[Msg] = []
        self.refused: list[str] = []
        self._came = asyncio.Event()

    async def note(self, error: Exception) -> None:
        self.refused.append(str(error).lower())
        self._came.set()

    async def hear(self, message: Msg) -> None:
        self.heard.append(message)
        self._came.set()

    async def listen(self, subject: str, *, queue: str = "") -> None:
        """Subscribe, and wait until the server has taken or refused it."""
        await self.client.subscribe(subject, queue, cb=self.hear)
        await self.settled()

    async def settled(self) -> None:
        """Wait until the server has taken or refused all that was sent, and what it sent before has come."""
        for _ in range(2):  # the first ping of nats-py overtakes what is not written yet
            await self.client.flush()

    async def send(self, subject: str, data: bytes = b"", *, reply: str = "", **headers: str) -> None:
        """Publish, and wait until the server has taken or refused it."""
        await self.client.publish(subject, data, reply, {name.replace("_", "-"): of for name, of in headers.items()})
        await self.settled()

    async def answer(self, subject: str, data: bytes = b"", **headers: str) -> Msg | None:
        """Ask, and return the first answer; None: the server refused the request, or nothing answers."""
        await self.listen(inbox := self.client.new_inbox())
        del self.heard[:]
        before = len(self.refused)
        self._came.clear()
        await self.send(subject, data, reply=inbox, **headers)
        async with asyncio.timeout(10):
            await self._came.wait()
        if len(self.refused) > before or (self.heard[0].headers or {}).get("Status") == "503":
            return None
        return self.heard[0]


@asynccontextmanager
async def attacker(server: NatsServer, user: str) -> AsyncIterator[Attacker]:
    """Sign in as `user`."""
    client = Client()
    attacking = Attacker(client)
    await client.connect(
        server.url,
        user=user,
        password=f"of-{user}",
        inbox_prefix=f"_INBOX.{user}",
        error_cb=attacking.note,
        allow_reconnect=False,
    )
    try:
        yield attacking
    finally:
        await client.close()
