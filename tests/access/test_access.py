"""Credential by protocol by game by origin: each cell is asked of a running relay and compared with the documents."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import aiohttp
import pytest

from auth.key_ring import KeyRing
from auth.revocations import Revocations
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.serve import running_relay
from roundlog.log_settings import LogSettings
from tests.access.access_rules import GAMES, ORIGINS, PAGE, TARGETS, Installation, Target, covered, refusal
from tests.access.credentials import KEYS, REVOKED, SIGNER, SIGNING_SECRET, Row, rows
from tests.access.protocols import OK, PROTOCOLS, Answer, Client, Way
from tests.nats import NatsServer
from tests.relay.conftest import wait_ready
from tests.rpc.caller import Caller
from tests.rpc.conftest import Publish, publish
from tests.security.known_secrets import KnownSecrets

pytestmark = pytest.mark.service
__all__ = ["publish"]

STRICT: Final = Installation(refuses_test_keys=True, refuses_private_keys_in_browsers=True)
NO_LIMITS: Final = dict.fromkeys(
    (
        "wrong_credentials_per_min",
        "private_requests_per_min",
        "public_requests_per_min",
        "public_key_requests_per_min",
        "private_links_per_s",
        "public_links_per_s",
        "address_links_per_s",
        "log_rounds_per_min",
    ),
    0,
)
"""The table asks thousands of times in seconds."""


CONCERNED: Final = (
    "private key",
    "public key",
    "private test key",
    "public test key",
    "key of games",
    "token of the private key",
    "token of the test key",
)
"""Credentials that a strict installation may answer in another way."""
MISSING: Final = {"dice": "dino", "slots": "slits"}
"""Names that exist, and names of the same length that do not."""


class Cell(NamedTuple):
    """A credential, a way to present it, what is asked for, and the origin of the page that asks."""

    row: Row
    way: Way
    target: Target
    origin: str | None

    def __str__(self) -> str:
        return f"{self.row.credential.name}, {self.way.name}, {' '.join(self.target)}, from {self.origin}"


def cells(ways: tuple[Way, ...], *, targets: tuple[Target, ...] = TARGETS) -> Iterator[Cell]:
    """Yield the cells of some ways: every target from the origin that is allowed, and every origin for one of them."""
    for row in rows():
        for way in ways:
            if row.only_in not in (None, way.slot):
                continue
            asked = [target for target in targets if target.what in way.takes]
            if way.lists:
                asked = [Target("all")]
            yield from (Cell(row, way, target, PAGE) for target in asked)
            yield from (Cell(row, way, asked[0], origin) for origin in ORIGINS if origin != PAGE)


@asynccontextmanager
async def client_of_relay(nats: NatsServer, at: Installation) -> AsyncIterator[Client]:
    """Start a relay with the keys and revocations of the table; yield a client of it."""
    settings = Settings.model_validate(
        {
            "nats": LogSettings(url=nats.url),
            "http": HttpSettings(host="127.0.0.1", port=0),
            "grpc": {"host": "127.0.0.1", "port": 0},
            "drain": {"grace_s": 1, "margin_s": 1},
            "limits": NO_LIMITS,
            "auth": {
                "test_keys": "refuse" if at.refuses_test_keys else "allow",
                "private_in_browsers": "refuse" if at.refuses_private_keys_in_browsers else "warn",
            },
        }
    )
    async with (
        running_relay(settings, KeyRing(KEYS), SIGNER, revocations=Revocations(REVOKED)) as relay,
        aiohttp.ClientSession() as http,
        Caller(f"127.0.0.1:{relay.grpc_port}", None) as grpc,
    ):
        await wait_ready(relay.url)
        yield Client(relay.url, grpc, http)


def fault_of(cell: Cell, answer: Answer, at: Installation) -> str | None:
    """Compare an answer with the documents; return what differs."""
    credential, way = cell.row.credential, cell.way
    target = None if way.lists else cell.target
    expected = refusal(credential, way.slot, target, cell.origin, at, web=way.web)
    wanted = OK if expected is None else way.refused(expected)
    if answer.outcome != wanted:
        return f"{cell}: {answer.outcome}, not {wanted}"
    if answer.games is None or expected is not None:
        return None
    wanted_games = covered(credential, cell.target)
    of_others = frozenset() if credential.games is None else answer.games - credential.games
    if answer.games & GAMES != wanted_games or of_others:
        return f"{cell}: rounds of {sorted(answer.games)}, not of {sorted(wanted_games)}"
    return None


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_every_cell_is_answered_as_documented(protocol: str, nats: NatsServer, publish: Publish) -> None:
    """Status, code, and whose rounds come; no secret is in any answer."""
    for game in GAMES:
        await publish(game, 1)
    known, faults, got = KnownSecrets(), list[str](), dict[Cell, bytes]()
    known.add("the secret of tokens", SIGNING_SECRET)
    async with client_of_relay(nats, Installation()) as client:
        for cell in cells(PROTOCOLS[protocol]):
            shown = cell.row.secrets()
            answer = await cell.way.ask(client, shown, cell.target, cell.origin)
            if fault := fault_of(cell, answer, Installation()):
                faults.append(fault)
            got[cell] = answer.text
            for secret in shown:
                known.add(cell.row.credential.name, secret)
    assert faults == [], "\n".join(faults)
    assert known.found_in(protocol, b"\n".join(got.values())) == []
    assert compared_with_nothing(got) == []


def compared_with_nothing(got: Mapping[Cell, bytes]) -> list[str]:
    """Compare what credentials of some games get for others' games and types with what they get for ones that are not
    there; return those that differ."""
    found = []
    for cell, text in got.items():
        credential, target = cell.row.credential, cell.target
        missing = cell._replace(target=target._replace(name=MISSING.get(target.name, "")))
        if credential.games is None or missing not in got or covered(credential, target):
            continue
        if text.replace(target.name.encode(), b"NAME") != got[missing].replace(missing.target.name.encode(), b"NAME"):
            found.append(f"{cell}: {text!r}, but {got[missing]!r}")
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_strict_installation_refuses_more(protocol: str, nats: NatsServer, publish: Publish) -> None:
    """Keys for tests, and private keys of web pages; the others are answered as elsewhere."""
    for game in GAMES:
        await publish(game, 1)
    faults = list[str]()
    async with client_of_relay(nats, STRICT) as client:
        for cell in cells(PROTOCOLS[protocol], targets=(Target("game", "crash"), Target("all"))):
            if cell.row.credential.name in CONCERNED:
                answer = await cell.way.ask(client, cell.row.secrets(), cell.target, cell.origin)
                if fault := fault_of(cell, answer, STRICT):
                    faults.append(fault)

    assert faults == [], "\n".join(faults)
