"""A plugin of pytest that fails a service test that leaves a connection, a file or a process behind.

Python reports such a thing when the garbage collector finds it, which would be in any later test of the same process.
"""

import gc
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Load the tests without collecting garbage, then leave all that is loaded out of collections.

    While modules are imported, collections find nothing and take a fifth of the time. Afterwards each takes 4 ms
    instead of 200 ms.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def collect_garbage_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect after a service test. Set up before its event loop, so that this runs when the loop is closed."""
    yield
    if request.node.get_closest_marker("service") is not None:
        gc.collect()
