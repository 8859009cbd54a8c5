"""Fixtures of the Postgres tests: a server for each test, of one version or of each that this machine has."""

from collections.abc import AsyncIterator

import pytest

from tests.postgres_server import VERSIONS, PostgresServer


async def _running(version: int) -> AsyncIterator[PostgresServer]:
    try:
        server = PostgresServer(version)
    except LookupError as error:
        pytest.skip(str(error))
    try:
        await server.start()
        yield server
    finally:
        await server.discard()


@pytest.fixture
async def postgres() -> AsyncIterator[PostgresServer]:
    """A running PostgreSQL 18 for one test; removed at the end in any state."""
    async for server in _running(18):
        yield server


@pytest.fixture(params=VERSIONS, ids=lambda version: f"postgres{version}")
async def any_postgres(request: pytest.FixtureRequest) -> AsyncIterator[PostgresServer]:
    """The same on each version; a version whose programs this machine lacks is skipped by name."""
    async for server in _running(request.param):
        yield server
