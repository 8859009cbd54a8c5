"""The key store in two tables of PostgreSQL. Relays read them; NOTIFY wakes them, and they also look every 2 s.

Owns the connections and the statements, which are in ``sql``. Needs the extra ``postgres``. What a row holds is the
stored form of `auth.stores.stored_json`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from auth.key import InvalidKeys, Key
from auth.redact import redact
from auth.revocations import Revocation
from auth.stores.key_store import (
    Conflict,
    Contents,
    StoreDenied,
    StoreMissing,
    StoreReceiver,
    StoreUnavailable,
    UnreadableEntry,
)
from auth.stores.stored_entries import StoredEntries
from auth.stores.stored_json import key_json, key_of_json, revocation_json
from roundlog.backoff import Backoff, jittered
from roundlog.client.library_errors import means_lost
from roundlog.tasks import raise_if_cancelled

if TYPE_CHECKING:
    from asyncpg import Connection

_CHANNEL: Final = "stream_relay_keys"
_POLL_S: Final = 2.0
"""How often the tables are looked at without a notification: a scan of them, 2 ms for 10,000 keys."""
_COALESCE_S: Final = 0.02
_ANSWER_S: Final = 5.0
_CLOSE_S: Final = 1.0
_PAUSE_S: Final = (0.1, 2.0)
_PAGE: Final = 100
"""Rows that are read between two turns of the event loop."""
_WHERE: Final = "table stream_relay.keys"
_MISSING: Final = "run auth/stores/sql/create_key_tables.sql, or make a first key with: stream-relay key create"
_COMMENT: Final = re.compile(r"^--.*\n", re.MULTILINE)


class PostgresKeys:
    """Keys and revocations in PostgreSQL 15 or newer. An `auth.stores.key_store.EditableKeyStore`."""

    name = "postgres"

    def __init__(self, dsn: str) -> None:
        """`dsn`: the URL of the database, with the user and, where needed, the password."""
        self._dsn = dsn
        self._shown = _shown(dsn)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def load(self) -> Contents:
        """See `auth.stores.key_store.KeyStore.load`."""
        async with self._open() as connection:
            return (await _read(connection, StoredEntries(_WHERE)))[1]

    async def follow(self, receiver: StoreReceiver) -> None:
        """See `auth.stores.key_store.KeyStore.follow`. Where notifications do not arrive, a change is seen in 2 s."""
        entries = StoredEntries(_WHERE)
        backoff = Backoff(*_PAUSE_S)
        while True:
            raise_if_cancelled()
            try:
                async with self._open() as connection:
                    await self._follow(connection, receiver, entries, backoff)
            except StoreUnavailable as error:
                receiver.lost(error)
                await asyncio.sleep(backoff.next_s())

    async def read(self, key_id: str) -> tuple[Key, int] | None:
        """See `auth.stores.key_store.EditableKeyStore.read`."""
        async with self._open() as connection:
            if not await _has_tables(connection):
                return None
            row = await connection.fetchrow(statement("read_key"), key_id)
        if row is None:
            return None
        try:
            return key_of_json(_WHERE, key_id, row["members"]), row["revision"]
        except InvalidKeys as error:
            raise UnreadableEntry(str(error), row["revision"]) from error

    async def write(self, key: Key, *, revision: int) -> int:
        """See `auth.stores.key_store.EditableKeyStore.write`. Creates the tables when there are none and it may."""
        members = key_json(key).decode()
        async with self._open() as connection:
            if revision:
                return _stored(await connection.fetchval(statement("update_key"), key.id, members, revision))
            await _create_if_missing(connection)
            return _stored(await connection.fetchval(statement("insert_key"), key.id, members))

    async def delete(self, key_id: str, *, revision: int) -> None:
        """See `auth.stores.key_store.EditableKeyStore.delete`."""
        async with self._open() as connection:
            _stored(await connection.fetchval(statement("delete_key"), key_id, revision))

    async def revoke(self, revocation: Revocation) -> None:
        """See `auth.stores.key_store.EditableKeyStore.revoke`. It is removed an hour after it refuses nothing."""
        members = revocation_json(revocation).decode()
        async with self._open() as connection:
            await _create_if_missing(connection)
            await connection.execute(
                statement("revoke"), revocation.what, revocation.value, members, float(revocation.until)
            )

    async def _follow(
        self, connection: "Connection[Any]", receiver: StoreReceiver, entries: StoredEntries, backoff: Backoff
    ) -> None:
        wake = asyncio.Event()
        connection.add_termination_listener(lambda _connection: wake.set())
        await _listen(connection, wake)
        known: str | None = None
        while True:
            raise_if_cancelled()
            wake.clear()
            if await connection.fetchval(statement("key_tables_state")) != known:
                known, contents = await _read(connection, entries)
                receiver.replace(contents)
            receiver.reached()
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(_POLL_S)):
                    await wake.wait()
                    await asyncio.sleep(_COALESCE_S)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator["Connection[Any]"]:
        import asyncpg

        with self._translated():
            connection = await asyncpg.connect(
                self._dsn,
                timeout=_ANSWER_S,
                command_timeout=_ANSWER_S,
                server_settings={"application_name": "stream-relay keys"},
            )
            try:
                yield connection
            finally:
                try:
                    await connection.close(timeout=_CLOSE_S)
                except BaseException as error:
                    connection.terminate()
                    if not (isinstance(error, Exception) or means_lost(error)):
                        raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import asyncpg

        try:
            yield
        except (Conflict, UnreadableEntry):
            raise
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
            raise StoreMissing(f"{self._shown} has no {_WHERE}; {_MISSING}") from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise StoreDenied(f"{self._shown}: {error}") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            raise self._unavailable(error) from error
        except BaseException as error:
            if not means_lost(error):
                raise
            raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> StoreUnavailable:
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        return StoreUnavailable(f"{self._shown} cannot be used: {redact(line)}")


async def _listen(connection: "Connection[Any]", wake: asyncio.Event) -> None:
    """Be woken by notifications; a standby, which cannot LISTEN, is only looked at."""
    import asyncpg

    with suppress(asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.ReadOnlySQLTransactionError):
        await connection.add_listener(_CHANNEL, lambda *_notification: wake.set())


async def _read(connection: "Connection[Any]", entries: StoredEntries) -> tuple[str, Contents]:
    """Return the state of both tables and what they hold, at one moment."""
    keys: list[Key] = []
    revocations: list[Revocation] = []
    faults: dict[str, str] = {}
    names: set[str] = set()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        state: str = await connection.fetchval(statement("key_tables_state"))
        async for row in connection.cursor(statement("read_keys"), prefetch=_PAGE):
            names.add(row["id"])
            key = entries.key(row["id"], row["members"])
            if isinstance(key, Key):
                keys.append(key)
            else:
                faults[row["id"]] = key
        async for row in connection.cursor(statement("read_revocations"), prefetch=_PAGE):
            name = f"{row['what']}:{row['value']}"  # no id of a key has a colon
            names.add(name)
            revocation = entries.revocation(name, row["members"])
            if isinstance(revocation, Revocation):
                revocations.append(revocation)
            else:
                faults[f"revocation of a {row['what']}"] = revocation
    entries.keep(names)
    return state, Contents(tuple(keys), tuple(revocations), faults)


async def _create_if_missing(connection: "Connection[Any]") -> None:
    if not await _has_tables(connection):
        await connection.execute(statement("create_key_tables"))


async def _has_tables(connection: "Connection[Any]") -> bool:
    return await connection.fetchval("SELECT to_regclass('stream_relay.keys')") is not None


def _stored(revision: int | None) -> int:
    if revision is None:
        raise Conflict("somebody else has changed this key meanwhile; read it again")
    return revision


def _shown(dsn: str) -> str:
    """Name the database without the user and the password."""
    try:
        parts = urlsplit(dsn)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "PostgreSQL"
    at = f" at {host}{f':{port}' if port else ''}" if host else ""
    return f"PostgreSQL{at}"


@cache
def statement(name: str) -> str:
    """Return the SQL in ``sql/<name>.sql`` without its comments."""
    text = resources.files(__package__).joinpath("sql", f"{name}.sql").read_text("utf-8")
    return _COMMENT.sub("", text).strip()
