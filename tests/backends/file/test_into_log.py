"""File replay and the publisher together, on a real nats-server: a stop and a restart double and lose nothing."""

import asyncio
from pathlib import Path

import pytest

from backends.contract import SourceError
from backends.file import FileReplay
from backends.file.place import Place
from backends.ingest import run_ingest
from backends.log import LogSettings, connect
from rounds import Round
from tests.backends.file.replaying import CONTEXT, jsonl, replay, rounds, write
from tests.nats import NatsServer

pytestmark = pytest.mark.service

HOUR = 3600


class Watched(FileReplay):
    """Says when so many rounds are stored for good."""

    def __init__(self, options: dict[str, object], count: int) -> None:
        super().__init__(options, CONTEXT)
        self._count = count
        self.reached = asyncio.Event()

    def confirm(self, position: Place) -> None:
        super().confirm(position)
        if position.played >= self._count:
            self.reached.set()


async def stored(nats: NatsServer) -> list[Round]:
    """Every round of the log, in its order."""
    async with connect(LogSettings(url=nats.url), name="test") as nc:
        js = nc.jetstream()
        info = await js.stream_info("ROUNDS")
        found = [await js.get_msg("ROUNDS", number) for number in range(1, info.state.last_seq + 1)]
    return [Round.parse(message.data or b"") for message in found]


async def test_stop_while_waiting_for_the_next_round_loses_and_doubles_nothing(
    nats: NatsServer, tmp_path: Path
) -> None:
    """As Ctrl-C does it, an hour of the recording before the next round is due; the second run plays the rest."""
    recorded = rounds(100) + rounds(50, first=HOUR)
    options: dict[str, object] = {
        "path": str(write(tmp_path / "a.jsonl", recorded)),
        "state_file": str(tmp_path / "state"),
    }
    log = LogSettings(url=nats.url)
    backend = Watched({**options, "speed": 100}, 100)

    ingest = asyncio.create_task(run_ingest(backend, log))
    await backend.reached.wait()
    ingest.cancel()
    await asyncio.wait([ingest])
    stats = await run_ingest(replay(**options), log)

    assert ingest.cancelled()
    assert (stats.acked, stats.duplicates) == (50, 0)
    assert await stored(nats) == recorded


async def test_crash_before_the_state_was_written_is_made_up_for_by_the_log(nats: NatsServer, tmp_path: Path) -> None:
    """What is read again the publisher finds at the end of the log and leaves out."""
    recorded = rounds(300)
    state = tmp_path / "state"
    options = {"path": str(write(tmp_path / "a.jsonl", recorded)), "state_file": str(state)}
    log = LogSettings(url=nats.url)
    backend = replay(**options)
    async with backend.open():
        early = state.read_bytes()

    await run_ingest(backend, log)
    state.write_bytes(early)
    stats = await run_ingest(replay(**options), log)

    assert (stats.acked, stats.duplicates) == (0, 300)
    assert await stored(nats) == recorded


async def test_rounds_before_a_malformed_line_are_stored(nats: NatsServer, tmp_path: Path) -> None:
    """The sentence reaches whoever started it, and nothing before it is lost."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(rounds(20)) + b"broken\n")

    with pytest.raises(SourceError, match=r"^a\.jsonl:21 is no round: "):
        await run_ingest(replay(path=str(path)), LogSettings(url=nats.url))

    assert await stored(nats) == rounds(20)
