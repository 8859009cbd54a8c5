"""What the pages are tried out against: the demo as a process of its own, one for a module."""

from collections.abc import Iterator
from itertools import islice

import pytest
import requests

from tests.clients.live_relay import LiveRelay
from tests.clients.recorded import brisk_relay

_ROUNDS = 3


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRelay]:
    """A demo whose log holds a few rounds of `crash` already, and gets more of them all the time."""
    with brisk_relay(tmp_path_factory.mktemp("demo")) as running:
        url = f"{running.url}/sse/crash"
        with requests.get(url, headers={"X-API-Key": running.key}, stream=True, timeout=30) as stream:
            rounds = (line for line in stream.iter_lines() if line.startswith(b"data:"))
            assert len(list(islice(rounds, _ROUNDS))) == _ROUNDS
        yield running
