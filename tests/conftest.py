"""Fixtures that several test folders share."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.nats import NatsServer

# A shell that runs us in the background ignores SIGINT, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A running nats-server with JetStream, this test's own; stopped at the end whatever state it is in."""
    store = tmp_path / "nats"
    store.mkdir()
    server = NatsServer(store)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
