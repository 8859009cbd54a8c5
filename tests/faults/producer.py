"""The producer: commits rounds in a known order, over its own connection to the database, and outlives every fault.

Owns the truth: which rounds were attempted, in which order; at the end the table says which of them were committed.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import asyncpg

from tests.faults.plan import GAMES, QUIET_GAME
from tests.faults.values import Commit, Extras, Key
from tests.postgres_server import PostgresServer
from tests.waiting import until

_COMMAND_S: Final = 3.0
_RETRY_S: Final = 0.1
_INSERT: Final = "INSERT INTO rounds VALUES ($1, $2, $3, now() + $4 * interval '1 second', $5)"
_NAME: Final = "producer"
_END_OTHERS: Final = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 AND pid <> ALL($2)"
)
_COLORS: Final = ("red", "black", "white")
_LONGEST_NOTE: Final = 800
_MANY: Final = 1000
_LATE_HELD: Final = 8
"""A transaction that stays open commits after so many others."""

Row = tuple[int, str, str, int, str]
_ERRORS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Producer:
    """Commits transactions one after another: mostly one round, sometimes many, some rolled back, some late."""

    def __init__(self, postgres: PostgresServer, seed: int, rate: int) -> None:
        self.begun = 0
        """The number of the newest transaction whose commit was begun."""
        self.rounds = 0
        """Rounds whose commit was acknowledged."""
        self.shift_s = 0
        """Added to ``finished_at``: a producer whose clock is wrong."""
        self._postgres = postgres
        self._random = random.Random(seed)
        self._rate = rate
        self._attempts: list[Commit] = []
        self._next_id = 1
        self._one_at_a_time = asyncio.Lock()
        self._connection: asyncpg.Connection[Any] | None = None
        self._late: tuple[asyncpg.Connection[Any], list[Row], int] | None = None

    async def run(self) -> None:
        """Commit at the rate of the schedule until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self.commit(self._size())
            due = max(due + 1 / self._rate, loop.time() - 1)  # after an outage: catch up by a second at most
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def commit(self, count: int, games: Sequence[str] | None = None) -> None:
        """Commit rounds in one transaction; when the connection breaks, whether they were committed is not known."""
        async with self._one_at_a_time:
            rows = [self._row(games) for _ in range(count)]
            await self._insert(rows, rolls_back=count < _MANY and self._random.random() < 0.02)
            await self._late_transaction()

    async def committed(self) -> list[Commit]:
        """Ask the database which of the attempts it has; in the order of their commits."""
        found = {row["round_id"] for row in await self._postgres.fetch("SELECT round_id FROM rounds")}
        return [attempt for attempt in self._attempts if attempt.key.round_id in found]

    async def finish(self) -> None:
        """Commit what is open, and close the connections."""
        if self._late is not None:
            await self._end_late()
        self._drop_connection()

    def _size(self) -> int:
        return self._random.choices([1, 5, 60], [90, 8, 2])[0]

    def _row(self, games: Sequence[str] | None) -> Row:
        game = self._random.choice(games or [*GAMES] * 12 + [QUIET_GAME])
        if games is None and game == QUIET_GAME and self._random.random() < 0.9:
            game = "crash"
        number, self._next_id = self._next_id, self._next_id + 1
        extras: Extras = {"point": f"{self._random.choice([1.1, 2.5, 7.25, 60.0]):.2f}"}
        if GAMES[game] == "color":
            extras = {"color": self._random.choice(_COLORS), "number": str(number % 15)}
        if self._random.random() < 0.15:
            extras["note"] = "\N{SNOWMAN}" * self._random.randint(1, _LONGEST_NOTE)
        return number, game, GAMES[game], self.shift_s, json.dumps(extras)

    async def _insert(self, rows: list[Row], *, rolls_back: bool) -> None:
        self.begun += 1
        if not rolls_back:
            self._attempt(rows)
        try:
            async with asyncio.timeout(_COMMAND_S):
                if self._connection is None:
                    self._connection = await self._connect_alone()
                transaction = self._connection.transaction()
                await transaction.start()
                await self._connection.executemany(_INSERT, rows)
                await (transaction.rollback() if rolls_back else transaction.commit())
            self.rounds += 0 if rolls_back else len(rows)
        except _ERRORS:
            self._drop_connection()
            await asyncio.sleep(_RETRY_S)

    def _attempt(self, rows: list[Row]) -> None:
        self._attempts += [Commit(self.begun, Key(row[1], row[0]), json.loads(row[4])) for row in rows]

    async def _late_transaction(self) -> None:
        """Now and then, open a transaction that inserts at once and commits after many others."""
        if self._late is not None:
            if self.begun >= self._late[2]:
                await self._end_late()
        elif self._random.random() < 0.02:
            rows = [self._row(None) for _ in range(2)]
            with suppress(*_ERRORS):
                async with asyncio.timeout(_COMMAND_S):
                    connection = await self._connect()
                    await connection.execute("BEGIN")
                    await connection.executemany(_INSERT, rows)
                    self._late = (connection, rows, self.begun + _LATE_HELD)

    async def _end_late(self) -> None:
        assert self._late is not None
        connection, rows, _ = self._late
        self._late = None
        self.begun += 1
        self._attempt(rows)
        try:
            async with asyncio.timeout(_COMMAND_S):
                await connection.execute("COMMIT")
        except _ERRORS:
            self._drop_connection()
        finally:
            connection.terminate()

    async def _connect(self) -> "asyncpg.Connection[Any]":
        return await asyncpg.connect(
            self._postgres.dsn(), timeout=_COMMAND_S, server_settings={"application_name": _NAME}
        )

    async def _connect_alone(self) -> "asyncpg.Connection[Any]":
        """Connect, and wait until no earlier session of ours can still commit: the order would not be known."""
        connection = await self._connect()
        try:
            ours = [connection.get_server_pid(), *([self._late[0].get_server_pid()] if self._late else [])]
            await until(lambda: self._is_alone(connection, ours), within_s=_COMMAND_S)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _is_alone(self, connection: "asyncpg.Connection[Any]", ours: list[int]) -> bool:
        return bool(await connection.fetchval(_END_OTHERS, _NAME, ours) == 0)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
