"""A server with accounts, whose log has rounds, and the account of the log as its operator sees it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from nats.aio.msg import Msg

from roundlog.client.connection import Connection, connect
from roundlog.publish.store import store
from roundlog.stream import open_log
from roundlog.tail import newest_sequences
from tests.nats import NatsServer
from tests.security.accounts import log_of

ROUNDS: Final = 3
_OF_LOG: Final = {"REJECTS": "rejects.*", "POSITIONS": "positions.*"}
_OF_KEYS: Final = {
    "KV_keys": "$KV.keys.>",
    "ADMINS": "admins.*",
    "AUDIT": "audit.change.*",
    "AUDIT_REFUSED": "audit.refused",
    "USAGE": "usage.>",
}


class Guarded:
    """The server, and the accounts of the log and of keys as their operators see them."""

    def __init__(self, server: NatsServer, operator: Connection, keeper: Connection) -> None:
        self.server = server
        self.operator = operator
        self.keeper = keeper

    async def state(self) -> dict[str, Any]:
        """Return every stream of both accounts with its configuration, messages and consumers."""
        found: dict[str, Any] = {}
        for one in (self.operator, self.keeper):
            answer = json.loads(await one.request("$JS.API.STREAM.LIST", b""))
            found |= {stream["config"]["name"]: (stream["config"], stream["state"]) for stream in answer["streams"]}
        return found

    async def overhear(self) -> list[str]:
        """Note from now on the subjects of what is published in both accounts, but for API requests and answers."""
        heard: list[str] = []

        async def note(message: Msg) -> None:
            if not message.subject.startswith(("$JS.API.", "$JS.EVENT.", "_R_.", "_INBOX.operator", "_INBOX.keeper")):
                heard.append(message.subject)

        for one in (self.operator, self.keeper):
            await one.subscribe(">", note)
            await one.request("$JS.API.INFO", b"")
        return heard

    async def add(self, number: int) -> None:
        """Store a round as ingest does."""
        body = b'{"round_id":%d}' % number
        await store(self.operator, "rounds.crash", body, headers={"Nats-Msg-Id": f"crash:{number}"})


@asynccontextmanager
async def guarded_by(server: NatsServer) -> AsyncIterator[Guarded]:
    """Start a server that has the users `operator` and `keeper`; make all streams, and store `ROUNDS` rounds."""
    await server.start()
    try:
        settings = log_of(server, "operator")
        async with (
            connect(settings, name="operator") as operator,
            connect(log_of(server, "keeper"), name="keeper") as keeper,
        ):
            await open_log(operator, settings)
            for one, streams in ((operator, _OF_LOG), (keeper, _OF_KEYS)):
                for name, subject in streams.items():
                    config = {"name": name, "subjects": [subject], "allow_direct": True, "allow_rollup_hdrs": True}
                    await one.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode())
            guarded = Guarded(server, operator, keeper)
            for number in range(ROUNDS):
                await guarded.add(number)
            yield guarded
    finally:
        await server.kill()


async def until_taken(guarded: Guarded) -> None:
    """Wait until the server has done what was asked of it before: a stream answers direct gets in their order."""
    for one in (guarded.operator, guarded.keeper) * 2:  # what it then publishes is stored, and answered
        for stream in await streams_of(one):
            await newest_sequences(one, stream)


async def streams_of(connection: Connection) -> list[str]:
    """Return the names of the streams of an account."""
    return list(json.loads(await connection.request("$JS.API.STREAM.NAMES", b""))["streams"])
