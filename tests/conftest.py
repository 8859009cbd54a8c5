"""Fixtures that several test folders share, and what is set once for the process that runs the tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.nats import NatsServer
from tests.properties import load_profiles
from tests.signals import keep_ignored_signals_from_children

pytest_plugins = ["tests.leaks"]

keep_ignored_signals_from_children()
load_profiles()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A running nats-server with JetStream for this test; stopped at the end in any state."""
    store = tmp_path / "nats"
    store.mkdir()
    server = NatsServer(store)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
