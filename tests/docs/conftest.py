"""Demos as processes of their own, for the examples of the pages; one of each kind for a module."""

from collections.abc import Iterator
from itertools import islice

import pytest
import requests

from tests.backends.file.replaying import rounds, write
from tests.clients.live_relay import LiveRelay, live_relay
from tests.clients.recorded import brisk_relay

_ROUNDS = 50


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRelay]:
    """A demo that gets rounds of `crash` continuously."""
    with brisk_relay(tmp_path_factory.mktemp("demo")) as running:
        read_rounds(running, 3)
        yield running


@pytest.fixture(scope="module")
def quiet_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRelay]:
    """A demo whose log holds rounds of `crash` and gets no more, so that equal requests get equal answers."""
    path = write(tmp_path_factory.mktemp("quiet") / "a.jsonl", rounds(_ROUNDS))
    playing = {"PATH": str(path), "SPEED": "max", "LOOP": "false", "SHIFT_TO_NOW": "false"}
    with live_relay({f"RELAY_BACKEND_{name}": value for name, value in playing.items()}) as running:
        read_rounds(running, _ROUNDS)
        yield running


def read_rounds(relay: LiveRelay, count: int) -> None:
    """Wait until the log holds `count` rounds."""
    url = f"{relay.url}/sse/crash?last={count}"
    with requests.get(url, headers={"X-API-Key": relay.key}, stream=True, timeout=30) as stream:
        found = (line for line in stream.iter_lines() if line.startswith(b"data:"))
        assert len(list(islice(found, count))) == count
