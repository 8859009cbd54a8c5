"""File replay and the publisher together, on a real nats-server: a stop and a restart double and lose nothing."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from backends.contract import SourceError
from backends.file import FileReplay
from backends.file.offset import FileOffset
from backends.ingest.run import run_ingest
from backends.publish.settings import PublisherSettings
from roundlog.settings import LogSettings
from rounds import Round
from tests.backends.file.replaying import CONTEXT, jsonl, replay, rounds, write
from tests.nats import NatsServer, nats_client
from tests.waiting import until

pytestmark = pytest.mark.service

HOUR = 3600


class Watched(FileReplay):
    """Says when so many rounds are stored for good."""

    def __init__(self, options: dict[str, object], count: int) -> None:
        super().__init__(options, CONTEXT)
        self._count = count
        self.reached = asyncio.Event()

    def confirm(self, offset: FileOffset) -> None:
        super().confirm(offset)
        if offset.played >= self._count:
            self.reached.set()


async def stored(nats: NatsServer) -> list[Round]:
    """Every round of the log, in its order."""
    async with nats_client(LogSettings(url=nats.url)) as nc:
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


async def window_passes(nats: NatsServer, log: LogSettings) -> None:
    """Wait until the server has forgotten the ids that it was given before."""
    async with nats_client(log) as nc:
        js = nc.jetstream()

        async def is_forgotten() -> bool:
            ack = await js.publish("rounds.dice", jsonl(rounds(1, game="dice")), headers={"Nats-Msg-Id": "dice:probe"})
            return not ack.duplicate

        await is_forgotten()
        await until(is_forgotten)


@pytest.mark.parametrize("state", ["none", "none_then_one", "removed", "crashed"])
async def test_recording_that_lies_behind_others_is_not_stored_twice(
    nats: NatsServer, tmp_path: Path, state: str
) -> None:
    """Begun again beyond duplicate window and tail, without a state file or with one that was lost or is too old."""
    recorded = rounds(300)
    path, file = write(tmp_path / "a.jsonl", recorded), tmp_path / "state"
    plain: dict[str, object] = {"path": str(path)}
    stated = {**plain, "state_file": str(file)}
    log, tail = LogSettings(url=nats.url, duplicate_window_s=0.1), PublisherSettings(tail_rounds=20)
    others = write(tmp_path / "b.jsonl", rounds(9_000, game="double"))
    early = await state_at(stated, 100) if state == "crashed" else None

    first = {"none": plain, "none_then_one": plain, "removed": stated, "crashed": stated}[state]
    await run_ingest(replay(**first), log, tail)
    await run_ingest(replay(path=str(others)), log, tail)
    await window_passes(nats, log)
    if early is not None:
        file.write_bytes(early)
    elif state == "removed":
        file.unlink()
    with capture_logs() as logs:
        stats = await run_ingest(replay(**(plain if state == "none" else stated)), log, tail)

    assert (stats.acked, stats.duplicates) == (0, 200 if state == "crashed" else 300)
    told = [entry["hint"] for entry in logs if entry["event"] == "recording_played_before"]
    assert len(told) == (0 if state == "crashed" else 1)


async def state_at(options: dict[str, object], count: int) -> bytes:
    """What a state file holds after so many rounds; it is gone again."""
    backend = replay(**options)
    async with backend.open(), aclosing(backend.read()) as batches:
        items = [item async for batch in batches for item in batch]
        backend.confirm(items[count - 1].offset)
    return taken(Path(str(options["state_file"])))


def taken(file: Path) -> bytes:
    """Remove a file; return what it held."""
    held = file.read_bytes()
    file.unlink()
    return held


async def test_recording_that_has_grown_brings_what_is_new_only(nats: NatsServer, tmp_path: Path) -> None:
    """A folder that got another file, begun again at the first."""
    write(tmp_path / "a.jsonl", rounds(300))
    log, tail = LogSettings(url=nats.url, duplicate_window_s=0.1), PublisherSettings(tail_rounds=20)
    await run_ingest(replay(path=str(tmp_path)), log, tail)
    write(tmp_path / "b.jsonl", rounds(50, first=300))
    await window_passes(nats, log)

    stats = await run_ingest(replay(path=str(tmp_path)), log, tail)

    assert (stats.acked, stats.duplicates) == (50, 300)


async def test_recording_whose_first_runs_stored_nothing_was_not_played_before(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Its first line stopped them, until it was allowed to be none; only then is there something to leave out."""
    path, log = tmp_path / "a.jsonl", LogSettings(url=nats.url)
    path.write_bytes(b"broken\n" + jsonl(rounds(30)))
    allowed = {"path": str(path), "rejects_file": str(tmp_path / "rejects")}
    stored_and_told = []
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(SourceError):
                await run_ingest(replay(path=str(path)), log)
        for _ in range(2):
            stats = await run_ingest(replay(**allowed), log)
            told = [entry["event"] for entry in logs].count("recording_played_before")
            stored_and_told.append((stats.acked, stats.duplicates, told))

    assert stored_and_told == [(30, 0, 0), (0, 30, 1)]


async def test_recording_is_played_into_a_log_that_was_made_anew(nats: NatsServer, tmp_path: Path) -> None:
    """What is kept of it is of a log that is gone; nothing is left out, nor told to have been there."""
    options = {"path": str(write(tmp_path / "a.jsonl", rounds(300)))}
    log = LogSettings(url=nats.url)
    await run_ingest(replay(**options), log)
    async with nats_client(log) as nc:
        await nc.jetstream().delete_stream("ROUNDS")

    with capture_logs() as logs:
        stats = await run_ingest(replay(**options), log)
    again = await run_ingest(replay(**options), log)

    assert (stats.acked, stats.duplicates) == (300, 0)
    assert not any(entry["event"] == "recording_played_before" for entry in logs)
    assert (again.acked, again.duplicates) == (0, 300)
