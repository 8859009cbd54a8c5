"""The URL of a database: what is accepted, what is shown of it, and what asyncpg gets."""

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import InvalidOptions, SourceError
from backends.postgres.dsn import Dsn, UnsupportedParameter
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection
from backends.postgres.source_admin import admin_of
from tests.postgres.ingesting import notify_backend, reading, set_up_notify
from tests.postgres.reading import make_backend
from tests.postgres.reading import reading as replication_reading
from tests.postgres_server import PostgresServer

BASE = "postgresql://relay:s3cret@db.internal:5432/games"


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        (BASE, "db.internal:5432/games"),
        ("postgres://u@h1:5432,h2:5433/games?target_session_attrs=primary", "h1:5432,h2:5433/games"),
        ("postgresql://u:p@[::1]:5432,10.0.0.1/games", "[::1]:5432,10.0.0.1/games"),
        ("postgresql:///games?host=/var/run/postgresql", "/var/run/postgresql/games"),
        ("postgresql://", "local socket/"),
    ],
)
def test_host_and_database_are_shown_without_user_and_parameters(dsn: str, shown: str) -> None:
    """One host, several, or a socket: logs and errors name them, and nothing secret."""
    assert PostgresOptions.read({"dsn": dsn}).shown_dsn == shown


@pytest.mark.parametrize(
    "dsn",
    ["mysql://u@h/d", "host=h dbname=d", "postgresql://u@h:port/d", "postgresql://u@h:0/d", "postgresql://u@h1:1,h2:99999/d",
     "postgresql://u@[::1/d", ""],
)  # fmt: skip
def test_invalid_url_is_one_sentence_without_the_value(dsn: str) -> None:
    """The value may contain a password, so the error shows only the form."""
    with pytest.raises(InvalidOptions, match="must be a URL such as") as caught:
        PostgresOptions.read({"dsn": dsn})
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_parameter_is_named_and_its_value_is_not() -> None:
    """A typo is found before a driver connects."""
    with pytest.raises(InvalidOptions, match=r"unknown parameter 'sslmod'.*sslmode") as caught:
        PostgresOptions.read({"dsn": f"{BASE}?sslmod=s3cret"})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidOptions, match="connect_timeout"):
        PostgresOptions.read({"dsn": f"{BASE}?connect_timeout=soon"})


def test_missing_database_names_the_variable() -> None:
    """`ingest` and `backend` say in the same words how to set it."""
    with pytest.raises(InvalidOptions, match="RELAY_BACKEND_DSN"):
        PostgresOptions.read({})


def test_asyncpg_gets_the_parameters_it_knows_and_the_shorter_timeout() -> None:
    """It would send other parameters to the server as settings; the timeout is an argument."""
    dsn = f"{BASE}?sslmode=require&channel_binding=prefer&connect_timeout=5&keepalives_idle=10&options=-c%20a%3Db"
    target = Dsn.parse(dsn).for_asyncpg(10)
    assert (target.dsn, target.timeout_s) == (f"{BASE}?sslmode=require&options=-c%20a%3Db", 5)
    assert Dsn.parse(dsn).for_asyncpg(2).timeout_s == 2
    assert Dsn.parse(f"{BASE}?connect_timeout=0").for_asyncpg(10).timeout_s == 10


@pytest.mark.parametrize("parameter", ["channel_binding=require", "gssencmode=require", "require_auth=scram-sha-256"])
def test_parameter_that_asyncpg_does_not_support_is_refused(parameter: str) -> None:
    """A security parameter is never silently ignored."""
    with pytest.raises(UnsupportedParameter, match=parameter.partition("=")[0]):
        Dsn.parse(f"{BASE}?sslmode=require&{parameter}").for_asyncpg(10)


@pytest.mark.parametrize("proof", ["sslmode=verify-full", "sslrootcert=system"])
def test_channel_binding_is_accepted_with_a_verified_certificate(proof: str) -> None:
    """Both exclude a man in the middle; hosted databases ask for both."""
    target = Dsn.parse(f"{BASE}?{proof}&channel_binding=require").for_asyncpg(10)
    assert "channel_binding" not in target.dsn
    assert (target.ssl is not None) == (proof == "sslrootcert=system")


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_with_a_sentence(text: str) -> None:
    """Untrusted text gives a DSN or one sentence."""
    for dsn in (text, f"postgresql://{text}", f"postgresql://h/d?{text}"):
        try:
            shown = PostgresOptions.read({"dsn": dsn}).shown_dsn
        except InvalidOptions as error:
            shown = str(error)
        assert len(shown.splitlines()) <= 1


PARAMETERS = (
    "sslmode=prefer&channel_binding=prefer&connect_timeout=5&keepalives=1&keepalives_idle=10&keepalives_interval=5"
    "&keepalives_count=3&tcp_user_timeout=10000&gssencmode=prefer&client_encoding=UTF8&fallback_application_name=x"
    "&target_session_attrs=read-write"
)


@pytest.mark.service
async def test_every_common_parameter_and_a_second_host_work_for_both_backends_and_all_commands(
    postgres: PostgresServer, unused_tcp_port: int
) -> None:
    """The URL of a hosted database works as it is: the first host is down, so the second is used."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    dsn = f"postgresql://postgres@127.0.0.1:{unused_tcp_port},127.0.0.1:{postgres.port}/postgres?{PARAMETERS}"
    for name in ("postgres-notify", "postgres-replication"):
        admin = admin_of(name, {"dsn": dsn})
        await admin.set_up(None)
        assert not [finding.text for finding in await admin.check() if finding.verdict == "failure"]
    async with reading(notify_backend(postgres, dsn=dsn)) as found:
        await postgres.insert_rounds(1, 3)
        await found.reach(3)
    async with replication_reading(make_backend(postgres, dsn=dsn)) as reader:
        await reader.seen(3)
    with_messages = make_backend(postgres, dsn=dsn, table="public.rounds", message_prefix="stream_relay")
    async with replication_reading(with_messages) as reader:
        await postgres.insert_rounds(4, 4)
        await reader.seen(1)


@pytest.mark.service
async def test_drivers_agree_on_each_parameter_that_is_passed_on(postgres: PostgresServer) -> None:
    """asyncpg gets what libpq would use: user, database and a setting of the session."""
    await postgres.execute("CREATE ROLE other LOGIN SUPERUSER")
    url = f"postgresql://127.0.0.1:{postgres.port}/?user=other&dbname=template1&options=-c%20geqo_threshold%3D777"
    options = PostgresOptions.read({"dsn": url})
    query = (
        "SELECT current_user::text AS who, current_database()::text AS which, current_setting('geqo_threshold') AS t"
    )
    link = await ReplicationConnection.connect(options, replication=False)
    (by_libpq,) = await link.query(query, 5)
    await link.close()
    connection = await asyncpg.connect(**options.target.for_asyncpg(5).arguments)
    by_asyncpg = dict(await connection.fetchrow(query))
    await connection.close()
    assert by_asyncpg == by_libpq == {"who": "other", "which": "template1", "t": "777"}


@pytest.mark.service
async def test_refused_parameter_is_one_sentence(postgres: PostgresServer) -> None:
    """The error names the parameter and an alternative, without a traceback."""
    admin = admin_of("postgres-notify", {"dsn": f"{postgres.dsn()}?channel_binding=require"})
    with pytest.raises(SourceError, match=r"channel_binding=require.*sslmode=verify-full"):
        await admin.check()
