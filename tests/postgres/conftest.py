"""Fixtures of the Postgres tests: servers of their own, on one version or on each that this machine has."""

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
    """A running PostgreSQL 18, this test's own; gone at the end whatever state it is in."""
    async for server in _running(18):
        yield server


@pytest.fixture(params=VERSIONS, ids=lambda version: f"postgres{version}")
async def any_postgres(request: pytest.FixtureRequest) -> AsyncIterator[PostgresServer]:
    """The same on each version; one whose programs this machine lacks is skipped by name."""
    async for server in _running(request.param):
        yield server
