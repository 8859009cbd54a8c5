"""Fixtures that several test folders share, and what is set once for the process that runs the tests."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.nats import NatsServer
from tests.network.ports import HeldPort
from tests.properties import load_profiles
from tests.signals import keep_ignored_signals_from_children

pytest_plugins = ["tests.leaks"]

_SERVICE = re.compile(r"^pytestmark = \[?pytest\.mark\.service\b", re.MULTILINE)

keep_ignored_signals_from_children()
load_profiles()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import modules in which all tests are service tests when none of those is to run: that takes seconds."""
    if config.option.markexpr != "not service" or not collection_path.name.startswith("test_"):
        return None
    return True if _SERVICE.search(collection_path.read_text("utf-8")) else None


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


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port that nobody else gets while this test runs, in place of the fixture of pytest-asyncio."""
    held = HeldPort()
    yield held.number
    del held
