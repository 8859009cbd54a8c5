"""The log as a publisher and an operator use it: store rounds, purge them, rebuild the log."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import msgspec

from roundlog.client.connection import Connection, connect
from roundlog.log_errors import LogUnsuitable
from roundlog.log_settings import LogSettings
from roundlog.stream import LogInfo, open_log
from rounds import Cursor, Round
from rounds.subjects import corrections_of, game_of, is_corrections, stored_subject
from rounds.times import utc_text

TEN_O_CLOCK_MS: Final = 1_768_730_400_000
"""2026-01-18T10:00:00Z: when the rounds of these tests begin."""


def make_round(game: str, number: int, *, at_ms: int | None = None, point: str = "2.50") -> Round:
    """Make round `number` of a game; by default rounds are a second apart."""
    timestamp = TEN_O_CLOCK_MS + number * 1000 if at_ms is None else at_ms
    return Round.make(
        round_id=number,
        game_slug=game,
        game_type="multiplier",
        finished_at=utc_text(timestamp),
        extras=f'{{"point":"{point}"}}',
        timestamp=timestamp,
    )


def make_correction(
    game: str, number: int, revision: int = 2, *, at_ms: int | None = None, point: str = "9.50", voided: bool = False
) -> Round:
    """Make a later revision of round `number` of a game; by default of its own time."""
    round_ = make_round(game, number, at_ms=at_ms, point=point)
    return msgspec.structs.replace(round_, revision=revision, voided=voided)


def make_stored(name: str, number: int, *, at_ms: int | None = None, point: str = "2.50") -> Round:
    """Make what stands under a name of a game, or under that of its corrections."""
    make = make_correction if is_corrections(name) else make_round
    return make(game_of(name), number, at_ms=at_ms, point=point)


def name_of(round_: Round) -> str:
    """Return the name under which the log has a round, or a correction."""
    return round_.game_slug if round_.revision == 1 else corrections_of(round_.game_slug)


class LogWriter:
    """A connection with every permission on the log."""

    def __init__(self, connection: Connection, settings: LogSettings, info: LogInfo) -> None:
        self._connection = connection
        self._nc = connection.client
        self.settings = settings
        self.epoch = info.epoch

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: LogSettings) -> AsyncIterator[Self]:
        """Connect, and create the log if there is none."""
        async with connect(settings, name="writer") as connection:
            yield cls(connection, settings, await open_log(connection, settings))

    async def store(self, *rounds: Round) -> list[int]:
        """Store rounds and corrections one by one; return their sequences."""
        return [await self.store_raw(stored_subject(name_of(round_)), round_.to_json()) for round_ in rounds]

    async def store_raw(self, subject: str, data: bytes, *, headers: dict[str, str] | None = None) -> int:
        answer = await self._ask(subject, data, headers)
        return int(answer["seq"])

    async def store_many(self, rounds: Iterable[Round]) -> int:
        """Store many rounds at once; return the sequence of the last, when all are stored."""
        last = (await self.info()).last
        for round_ in rounds:
            await self._nc.publish(stored_subject(name_of(round_)), round_.to_json())
            last += 1
        await self._nc.flush(timeout=30)
        while (await self.info()).last < last:
            pass
        return last

    async def purge_up_to(self, sequence: int) -> None:
        """Remove everything up to and including a sequence, as retention does."""
        await self._ask(f"$JS.API.STREAM.PURGE.{self.settings.stream}", msgspec.json.encode({"seq": sequence + 1}))

    async def delete(self, *sequences: int) -> None:
        """Remove single rounds, as ``nats stream rmm`` does."""
        for sequence in sequences:
            call = f"$JS.API.STREAM.MSG.DELETE.{self.settings.stream}"
            await self._ask(call, msgspec.json.encode({"seq": sequence, "no_erase": True}))

    async def rebuild(self) -> None:
        """Delete the log, and create an empty one."""
        before, last = self.epoch, -1
        while last:  # nats-server removes files a moment later, and a new stream may load those of the old one
            await self._nc.request(f"$JS.API.STREAM.DELETE.{self.settings.stream}", b"", timeout=10)
            with suppress(LogUnsuitable):  # or fail on them
                info = await open_log(self._connection, self.settings)
                self.epoch, last = info.epoch, info.last
        assert self.epoch != before

    async def info(self) -> LogInfo:
        return await open_log(self._connection, self.settings)

    def cursor(self, sequence: int) -> str:
        return str(Cursor(self.epoch, sequence))

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> Mapping[str, Any]:
        reply = await self._nc.request(subject, payload, timeout=10, headers=headers)
        answer: Mapping[str, Any] = msgspec.json.decode(reply.data)
        assert "error" not in answer, answer
        return answer
