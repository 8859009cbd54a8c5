"""Fixtures: one relay for all samples of a module, and one for a test that stops it."""

from collections.abc import Iterator

import pytest

from tests.clients.live_relay import LiveRelay, live_relay


@pytest.fixture(scope="module")
def relay() -> Iterator[LiveRelay]:
    with live_relay() as running:
        yield running


@pytest.fixture
def own_relay() -> Iterator[LiveRelay]:
    with live_relay() as running:
        yield running
