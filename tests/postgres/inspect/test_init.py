"""`stream-relay backend init`: what is proposed for tables as people have them, and the command itself."""

import pytest

from backends.postgres.database import close_connection, open_connection
from backends.postgres.inspect.choose import choose_tables
from backends.postgres.inspect.preview import preview_table
from backends.postgres.postgres_options import PostgresOptions
from rounds import Catalogue
from tests.postgres.inspect.schemas import SCHEMAS
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


async def test_tables_as_people_have_them_are_recognised(any_postgres: PostgresServer) -> None:
    """The proposal for each schema is complete, and no row of it is rejected."""
    catalogue, options = Catalogue.load(), PostgresOptions.read({"dsn": any_postgres.dsn()})
    connection = await open_connection(options, "test")
    for name, schema in SCHEMAS.items():
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(schema.sql)
        choice = await choose_tables(connection, options, catalogue, [], {})
        proposed = [dict(proposal.options) for proposal in choice.chosen]
        assert (name, proposed) == (name, [dict(table) for table in schema.tables])
        assert [question for proposal in choice.chosen for question in proposal.questions] == [], name
        assert not choice.is_ambiguous, name
        for table in proposed:
            given = PostgresOptions.read({"dsn": any_postgres.dsn(), **table})
            preview = await preview_table(connection, given, given, catalogue)
            assert preview.rejects == [], name
            assert preview.counts["rounds"] or not preview.rows, name
        await transaction.rollback()
    await close_connection(connection, within_s=5)
