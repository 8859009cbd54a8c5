"""File replay and publisher together, on a real nats-server: a restart neither loses nor repeats rounds."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from backends.contract import SourceError
from backends.file import FileReplay
from backends.file.file_offset import FileOffset
from backends.ingest.run_ingest import run_ingest
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from rounds import Round
from tests.backends.file.replaying import CONTEXT, jsonl, replay, rounds, write
from tests.nats import NatsServer, nats_client
from tests.waiting import until

pytestmark = pytest.mark.service

HOUR = 3600


class Watched(FileReplay):
    """Sets `reached` when `count` rounds are confirmed."""

    def __init__(self, options: dict[str, object], count: int) -> None:
        super().__init__(options, CONTEXT)
        self._count = count
        self.reached = asyncio.Event()

    def confirm(self, offset: FileOffset) -> None:
        super().confirm(offset)
        if offset.played >= self._count:
            self.reached.set()


async def stored(nats: NatsServer) -> list[Round]:
    """Return every round of the log, in its order."""
    async with nats_client(LogSettings(url=nats.url)) as nc:
        js = nc.jetstream()
        info = await js.stream_info("ROUNDS")
        found = [await js.get_msg("ROUNDS", number) for number in range(1, info.state.last_seq + 1)]
    return [Round.parse(message.data or b"") for message in found]


async def test_stop_while_waiting_for_the_next_round_loses_and_repeats_nothing(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Ctrl-C long before the next round is due ends the run; the second run plays the remaining rounds."""
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


async def test_rounds_read_again_after_a_crash_are_not_stored_again(nats: NatsServer, tmp_path: Path) -> None:
    """After a crash before the state was written, the publisher finds the rounds at the log's end and skips them."""
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
    """The run fails with the sentence, and the rounds before the line are in the log."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(rounds(20)) + b"broken\n")

    with pytest.raises(SourceError, match=r"^a\.jsonl:21 is not a round: "):
        await run_ingest(replay(path=str(path)), LogSettings(url=nats.url))

    assert await stored(nats) == rounds(20)


async def window_passes(nats: NatsServer, log: LogSettings) -> None:
    """Wait until the duplicate window of all rounds so far has passed."""
    async with nats_client(log) as nc:
        js = nc.jetstream()

        async def is_forgotten() -> bool:
            ack = await js.publish("rounds.dice", jsonl(rounds(1, game="dice")), headers={"Nats-Msg-Id": "dice:probe"})
            return not ack.duplicate

        await is_forgotten()
        await until(is_forgotten)


@pytest.mark.parametrize("state", ["none", "none_then_one", "removed", "crashed"])
async def test_recording_older_than_window_and_tail_is_not_stored_twice(
    nats: NatsServer, tmp_path: Path, state: str
) -> None:
    """It is replayed again without a state file, or with one that was removed or is too old."""
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
    warnings = [entry["hint"] for entry in logs if entry["event"] == "recording_played_before"]
    assert len(warnings) == (0 if state == "crashed" else 1)


async def state_at(options: dict[str, object], count: int) -> bytes:
    """Return what the state file holds after `count` rounds, and remove the file."""
    backend = replay(**options)
    async with backend.open(), aclosing(backend.read()) as batches:
        items = [item async for batch in batches for item in batch]
        backend.confirm(items[count - 1].offset)
    return taken(Path(str(options["state_file"])))


def taken(file: Path) -> bytes:
    """Remove a file and return its content."""
    held = file.read_bytes()
    file.unlink()
    return held


async def test_only_new_rounds_of_a_recording_that_has_grown_are_stored(nats: NatsServer, tmp_path: Path) -> None:
    """A folder that has another file is replayed from its first file."""
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
    """Runs that its first line stopped cause no warning; a run after one that stored rounds does."""
    path, log = tmp_path / "a.jsonl", LogSettings(url=nats.url)
    path.write_bytes(b"broken\n" + jsonl(rounds(30)))
    allowed = {"path": str(path), "rejects_file": str(tmp_path / "rejects")}
    runs = []
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(SourceError):
                await run_ingest(replay(path=str(path)), log)
        for _ in range(2):
            stats = await run_ingest(replay(**allowed), log)
            warnings = [entry["event"] for entry in logs].count("recording_played_before")
            runs.append((stats.acked, stats.duplicates, warnings))

    assert runs == [(30, 0, 0), (0, 30, 1)]


async def test_recording_is_played_into_a_log_that_was_rebuilt(nats: NatsServer, tmp_path: Path) -> None:
    """The note is of an earlier log: no round is skipped, and no warning is logged."""
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
