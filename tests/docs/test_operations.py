"""The numbers of clients in docs/operations.md are those that a relay computes."""

import re
from typing import Final

import pytest

from relay.admission.capacity import Capacity, LinkProtocol
from relay.admission.open_files import FileShares
from relay.config.sections import LinkSettings
from rounds.subjects import LIVE_TEMPLATE, LOG_SUBJECTS
from tests.docs.pages import table, text_of

ROWS: Final[dict[str, tuple[LinkProtocol, ...]]] = {
    "WebSocket, SSE": ("websocket", "sse"),
    "HTTP proxy of gRPC, a stream": ("proxy",),
    "gRPC, a stream": ("grpc",),
    "gRPC over TLS, a stream": ("grpc",),
}
MEMORY_MB: Final = (256, 512, 1024)


@pytest.mark.parametrize("row", table(text_of("operations.md"), "a link of"), ids=lambda row: row[0])
def test_links_that_fit(row: list[str]) -> None:
    """Exact for each protocol and memory size of the table."""
    name, takes, measured, *fit = row
    rooms = [
        Capacity.of_memory(mb << 20, unsent_bytes=LinkSettings().unsent_bytes, grpc_tls="TLS" in name)
        for mb in MEMORY_MB
    ]

    for protocol in ROWS[name]:
        assert f"{rooms[0].costs[protocol] >> 10} KB" == takes
        assert [f"{room.fit(protocol):,}" for room in rooms] == [cell.strip("*") for cell in fit]
    assert int(takes.split()[0]) - int(measured.split()[0]) == 4 + 4


def test_every_row_is_there() -> None:
    """The table has every protocol."""
    assert [row[0] for row in table(text_of("operations.md"), "a link of")] == list(ROWS)


def test_shares_of_files() -> None:
    """The numbers of the table are those that a relay computes."""
    rows = [[int(cell.replace(",", "")) for cell in row[1:]] for row in table(text_of("operations.md"), "share")]
    small, large = FileShares.of(560, links=50_000), FileShares.of(1 << 20, links=50_000)

    assert sum(row[0] for row in rows) == 560
    assert [row[0] for row in rows[1:]] == [small.strangers, small.guests, small.grpc_connections, small.links]
    assert [row[1] for row in rows[1:]] == [large.strangers, large.guests, large.grpc_connections, 50_000]


def test_command_that_restores_republishing_has_the_values_of_the_log() -> None:
    """All commands of the page were tried with version 0.5.1 of the `nats` tool, which the tests do not have."""
    [command] = re.findall("^nats stream edit ROUNDS .*--republish-source.*$", text_of("operations.md"), re.MULTILINE)
    options = dict(re.findall(r"--republish-(\w+) '(.*?)'", command))

    assert options == {"source": LOG_SUBJECTS, "destination": LIVE_TEMPLATE}
