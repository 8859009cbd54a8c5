"""``tail``, ``replay``, ``history`` and ``export`` as a user runs them, against a running relay."""

import asyncio
import csv
import fcntl
import gzip
import io
import json
import os
import pty
import signal
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from auth.key_ring import KeyRing
from auth.tokens import TokenSigner
from relay.config.sections import DrainSettings, GrpcSettings, HttpSettings, ReplaySettings
from relay.config.settings import Settings
from relay.serve import Addresses, running_relay
from roundlog.log_settings import LogSettings
from rounds import Round
from rounds.times import utc_text
from tests.backends.file.replaying import played, replay, rounds_of
from tests.clients.program import clean_environment
from tests.nats import NatsServer
from tests.network.streams import serving
from tests.relay.conftest import metric_becomes, wait_ready
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_correction, make_round
from tests.resume.viewers import watch
from tests.waiting import until

pytestmark = pytest.mark.service

COMMAND = str(Path(sys.executable).with_name("stream-relay"))
COUNT = 300
"""Number of rounds of ``crash`` in the log, and of ``dice``; the relay keeps 20 of each in memory."""
TRANSPORTS = ("ws", "sse", "grpc")
_DEADLINE_S = 60


class Relay(NamedTuple):
    """A running relay and its log."""

    at: Addresses
    log: LogWriter

    def url(self, via: str = "ws") -> str:
        return f"grpc://127.0.0.1:{self.at.grpc_port}" if via == "grpc" else self.at.url


class Result(NamedTuple):
    """The status and output of a command."""

    code: int
    out: str
    err: str

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def ids(self) -> list[int]:
        return [round_["round_id"] for round_ in self.rounds]


@pytest.fixture
async def relay(nats: NatsServer) -> AsyncIterator[Relay]:
    """A relay with a full log."""
    settings = Settings(
        nats=LogSettings(url=nats.url),
        http=HttpSettings(host="127.0.0.1", port=0),
        grpc=GrpcSettings(host="127.0.0.1", port=0),
        drain=DrainSettings(grace_s=1, margin_s=1),
        replay=ReplaySettings(ring_rounds=20),
    )
    async with LogWriter.open(settings.nats) as log:
        await log.store_many(all_rounds())
        async with running_relay(settings, KeyRing.demo(), TokenSigner.ephemeral()) as at:
            await wait_ready(at.url)
            yield Relay(at, log)


def all_rounds() -> list[Round]:
    return [
        make_round(game, number, point="7.00" if number % 10 == 0 else "2.50")
        for number in range(1, COUNT + 1)
        for game in ("crash", "dice")
    ]


def at(number: int) -> str:
    return utc_text(TEN_O_CLOCK_MS + number * 1000)


@asynccontextmanager
async def started(*arguments: str, **files: Any) -> AsyncIterator[Process]:
    """Run a command while the block runs, with a time limit."""
    streams = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE} | files
    env = clean_environment() | {"PYTHONUNBUFFERED": ""}  # as a user runs them
    process = await asyncio.create_subprocess_exec(COMMAND, *arguments, env=env, **streams)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ran(*arguments: str) -> Result:
    """Run a command to its end."""
    async with started(*arguments) as process:
        out, err = await process.communicate()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())


async def lines(stream: asyncio.StreamReader | None, count: int) -> list[str]:
    assert stream is not None
    return [(await stream.readline()).decode() for _ in range(count)]


# --- output ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", TRANSPORTS)
async def test_a_bounded_replay_prints_its_rounds_and_ends(relay: Relay, via: str) -> None:
    """Over every protocol, rounds from the first to the last time, both included, come in order, one per line."""
    result = await ran("replay", "crash", "--from", at(100), "--to", at(200), "--via", via, "--url", relay.url(via))

    assert (result.code, result.err) == (0, "")
    assert result.ids == list(range(100, 201))
    assert list(result.rounds[0])[-1] == "cursor"


@pytest.mark.parametrize("via", TRANSPORTS)
@pytest.mark.parametrize("ending", [("--to", at(3)), ("--speed", "10000", "--count", "3")])
async def test_a_replay_without_a_beginning_begins_with_the_oldest_round(
    relay: Relay, via: str, ending: tuple[str, ...]
) -> None:
    """--to or --speed alone is enough."""
    result = await ran("replay", "crash", *ending, "--via", via, "--url", relay.url(via))

    assert (result.code, result.err, result.ids) == (0, "", [1, 2, 3])


async def test_a_grpc_url_selects_grpc(relay: Relay) -> None:
    """--via is not needed."""
    result = await ran("replay", "crash", "--to", at(3), "--url", relay.url("grpc"))

    assert (result.code, result.err, result.ids) == (0, "", [1, 2, 3])


@pytest.mark.parametrize(
    ("via", "url", "sentence"),
    [
        ("ws", "http://127.0.0.1:9", "is a relay running at http://127.0.0.1:9?"),
        ("sse", "http://127.0.0.1:9", "is a relay running at http://127.0.0.1:9?"),
        ("grpc", "grpc://127.0.0.1:9", "does a relay serve gRPC at 127.0.0.1:9? for another address use --url grpc://"),
    ],
)
async def test_without_a_relay_the_command_asks_once_whether_one_is_running(via: str, url: str, sentence: str) -> None:
    """It does not report a lost connection, and does not repeat the sentence at every attempt."""
    async with started("tail", "--via", via, "--url", url) as process:
        [first] = await lines(process.stderr, 1)
        process.send_signal(signal.SIGINT)
        _, rest = await process.communicate()

    assert sentence in first
    assert "lost" not in first
    assert (rest, process.returncode) == (b"", 130)


@pytest.mark.parametrize("via", TRANSPORTS)
async def test_an_outage_is_reported_once_and_so_is_its_end(nats: NatsServer, via: str) -> None:
    """For any number of attempts: one line for the failure, and one for the connection, before any round."""
    attempts = 0
    enough = asyncio.Event()

    async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 4:
            enough.set()

    broken = AsyncExitStack()
    port = await broken.enter_async_context(serving(hang_up))
    url = f"grpc://127.0.0.1:{port}" if via == "grpc" else f"http://127.0.0.1:{port}"
    ports = {"http": 0, "grpc": 0} | {"grpc" if via == "grpc" else "http": port}
    settings = Settings(
        nats=LogSettings(url=nats.url),
        http=HttpSettings(host="127.0.0.1", port=ports["http"]),
        grpc=GrpcSettings(host="127.0.0.1", port=ports["grpc"]),
        drain=DrainSettings(grace_s=1, margin_s=1),
    )
    async with started("tail", "crash", "--via", via, "--url", url) as process:
        await enough.wait()
        await broken.aclose()
        async with running_relay(settings, KeyRing.demo(), TokenSigner.ephemeral()):
            said = await lines(process.stderr, 1)
            while not said[-1].startswith("stream-relay: connected, after "):  # the failures before it depend on timing
                said += await lines(process.stderr, 1)
            process.send_signal(signal.SIGINT)
            out, rest = await process.communicate()

    assert len(said) > 1
    assert len(set(said)) == len(said)
    assert (out, rest) == (b"", b"")


@pytest.mark.parametrize("via", TRANSPORTS)
async def test_a_replay_goes_on_live(relay: Relay, via: str) -> None:
    """Rounds stored while it runs come after the past ones; without a game, rounds of all games come."""
    arguments = ("replay", "--last", "2", "--via", via, "--url", relay.url(via))
    async with started(*arguments) as process:
        past = await lines(process.stdout, 4)
        await relay.log.store(make_round("double", 1))
        [live] = await lines(process.stdout, 1)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130

    seen = [(json.loads(line)["game_slug"], json.loads(line)["round_id"]) for line in [*past, live]]
    assert seen == [("crash", 299), ("dice", 299), ("crash", 300), ("dice", 300), ("double", 1)]


async def test_a_replay_after_a_cursor_begins_with_the_next_round(relay: Relay) -> None:
    """The filter applies too."""
    result = await ran(
        *("replay", "crash", "--after", relay.log.cursor(401), "--where", "min_point=7", "--count", "3"),
        *("--url", relay.url()),
    )

    assert (result.code, result.ids) == (0, [210, 220, 230])


@pytest.mark.parametrize("via", TRANSPORTS)
async def test_tail_prints_live_rounds_only(relay: Relay, via: str) -> None:
    """It prints no past rounds, and stops after --count rounds."""
    async with started("tail", "crash", "--via", via, "--url", relay.url(via), "--count", "1") as process:
        number, line = 1000, asyncio.ensure_future(lines(process.stdout, 1))
        while not line.done():  # publish until the command has connected
            number += 1
            await relay.log.store(make_round("crash", number))
            await asyncio.wait({line}, timeout=0.1)
        assert await process.wait() == 0

    assert json.loads(line.result()[0])["round_id"] > 1000


@pytest.mark.parametrize("via", TRANSPORTS)
async def test_replay_prints_corrections_if_asked(relay: Relay, via: str) -> None:
    """With their revision, and `voided`; the same over every protocol."""
    await relay.log.store(make_correction("crash", 299), make_correction("crash", 299, 3, voided=True))

    result = await ran(
        "replay", "crash", "--last", "2", "--corrections", "-n", "4", "--via", via, "--url", relay.url(via)
    )

    found = [(each["round_id"], each.get("revision"), each.get("voided")) for each in result.rounds]
    assert found == [(299, None, None), (300, None, None), (299, 2, None), (299, 3, True)]


async def test_tail_prints_corrections_if_asked(relay: Relay) -> None:
    """As they come."""
    async with started("tail", "crash", "--corrections", "--count", "1", "--url", relay.url()) as process:
        line = asyncio.ensure_future(lines(process.stdout, 1))
        while not line.done():  # publish until the command has connected
            await relay.log.store(make_correction("crash", 300))
            await asyncio.wait({line}, timeout=0.1)

    assert json.loads(line.result()[0])["revision"] == 2


async def test_history_shows_corrections_if_asked(relay: Relay) -> None:
    """In columns of their own."""
    await relay.log.store(make_correction("crash", 299, 4, voided=True))
    asked = ("history", "crash", "--limit", "2", "--url", relay.url())

    table = (await ran(*asked, "--corrections")).out.splitlines()
    rows = list(csv.DictReader(io.StringIO((await ran(*asked, "--corrections", "--format", "csv")).out)))

    assert table[0].split() == ["finished_at", "game_slug", "round_id", "extras", "revision", "voided", "cursor"]
    assert table[1].split()[2:6] == ["299", '{"point":"9.50"}', "4", "true"]
    assert [(row["round_id"], row["revision"], row["voided"]) for row in rows] == [
        ("299", "4", "true"),
        ("300", "1", ""),
    ]


async def test_history_as_json_lines_is_newest_first_over_several_pages(relay: Relay) -> None:
    """It prints --limit rounds, or all when the log has fewer."""
    some = await ran("history", "crash", "--limit", "30", "--format", "jsonl", "--url", relay.url())
    everything = await ran("history", "--limit", "5000", "--format", "jsonl", "--url", relay.url())

    assert some.ids == list(range(300, 270, -1))
    assert len(everything.rounds) == 2 * COUNT
    assert (some.err, everything.err) == ("", "")


async def test_history_as_csv_is_read_back_by_any_reader(relay: Relay) -> None:
    """The header has the six fields of a round, and extras are JSON in a quoted field."""
    result = await ran("history", "dice", "--limit", "3", "--format", "csv", "--to", at(50), "--url", relay.url())

    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [row["round_id"] for row in rows] == ["50", "49", "48"]
    assert list(rows[0]) == ["round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp"]
    assert json.loads(rows[0]["extras"]) == {"point": "7.00"}


async def test_history_as_a_table(relay: Relay) -> None:
    """The table has a header and one line per round."""
    result = await ran("history", "crash", "--limit", "2", "--url", relay.url())

    assert result.code == 0
    heading, *rows = result.out.splitlines()
    assert heading.split() == ["finished_at", "game_slug", "round_id", "extras", "cursor"]
    assert [row.split()[2] for row in rows] == ["300", "299"]  # one line per round, as a pipe needs


async def test_a_table_on_a_narrow_terminal_leaves_the_cursor_out(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other columns then fit the terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)  # overrides the width of the terminal
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    async with started("history", "crash", "--limit", "1", "--url", relay.url(), stdout=theirs) as process:
        shown = asyncio.create_task(asyncio.to_thread(_all_of, ours))
        await process.wait()
        os.close(theirs)

    heading = (await shown).splitlines()[0]
    assert "extras" in heading
    assert "cursor" not in heading


# --- errors ----------------------------------------------------------------------------------------------------------

REPLAY = ("replay", "crash", "--last", "1")


@pytest.mark.parametrize("via", TRANSPORTS)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*REPLAY, "--key", "sk_live_x"), "the API key is malformed"),
        ((*REPLAY, "--key", f"sk_live_{'1' * 64}"), "the API key is unknown"),
        (("replay", "chess", "--last", "1"), "chess"),
        (("replay", "crash", "--after", "nonsense"), "cursor 'nonsense' is malformed"),
        (("replay", "crash", "--from", "noon"), "from 'noon' is not an RFC 3339 time"),
        ((*REPLAY, "--speed", "0"), "speed '0.0' is not a number from 0.01 to 10000"),
        ((*REPLAY, "--where", "min_point=x"), "min_point 'x' is not a decimal number"),
        (("replay", "crash", "--from", "2026-01-18T10:00:00Z", "--last", "1"), "from and last were given"),
    ],
)
async def test_what_the_relay_refuses_is_one_line(
    relay: Relay, via: str, arguments: tuple[str, ...], sentence: str
) -> None:
    """Over every protocol: the relay's sentence, status 1, and no reconnect."""
    result = await ran(*arguments, "--via", via, "--url", relay.url(via))

    assert_one_line(result, sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("replay", "crash"), "one of --from, --after and --last is needed"),
        (("tail", "--where", "min_point"), "--where 'min_point' is not NAME=VALUE"),
        (("tail", "--where", "points=2"), "--where 'points=2' is not a filter; there are: min_point, max_point"),
        (("tail", "--url", "localhost:8080"), "--url 'localhost:8080' is not the address of a relay"),
        (("tail", "--url", "http://x:port"), "--url 'http://x:port' is not the address of a relay"),
        (
            ("tail", "--via", "sse", "--url", "grpc://127.0.0.1:1"),
            "--url 'grpc://127.0.0.1:1' is not the address of a relay",
        ),
        (
            ("tail", "--via", "grpc", "--url", "http://127.0.0.1:18080"),
            "--url 'http://127.0.0.1:18080' is the address of HTTP; give that of gRPC, such as grpc://127.0.0.1:50051",
        ),
        (("history", "--url", "http://127.0.0.1:9"), "http://127.0.0.1:9 cannot be reached"),
        (("export", "rounds.xml"), "rounds.xml must end in .jsonl, .jsonl.gz or .jsonl.zst"),
        (("export", "/no/such/folder/rounds.jsonl"), "/no/such/folder/rounds.jsonl cannot be written: No such file"),
    ],
)
async def test_wrong_arguments_are_refused_without_a_request(arguments: tuple[str, ...], sentence: str) -> None:
    """Stderr has one line, and the status is 1."""
    assert_one_line(await ran(*arguments), sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("history", "chess"), "chess"),
        (("history", "--key", "sk_live_x"), "the API key is malformed"),
        (("history", "--from", "noon"), "from 'noon' is not an RFC 3339 time"),
        (("history", "--where", "max_point=x"), "max_point 'x' is not a decimal number"),
    ],
)
async def test_history_that_is_refused_prints_one_line(relay: Relay, arguments: tuple[str, ...], sentence: str) -> None:
    """It ends as the streaming commands do."""
    assert_one_line(await ran(*arguments, "--url", relay.url()), sentence)


def assert_one_line(result: Result, sentence: str) -> None:
    assert (result.code, result.out) == (1, ""), result
    [line] = [line for line in result.err.splitlines() if "warning: --key" not in line]
    assert line.startswith("stream-relay: ")
    assert sentence in line


# --- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rounds.jsonl", "rounds.jsonl.gz", "rounds.jsonl.zst"])
async def test_what_was_exported_is_replayed_by_the_file_backend(relay: Relay, tmp_path: Path, name: str) -> None:
    """The recording gives the same rounds as the log, in the same order."""
    file = tmp_path / name

    result = await ran("export", str(file), "--url", relay.url())

    assert (result.code, result.out) == (0, "")
    assert result.err == f"{2 * COUNT} rounds written to {file}\n"
    assert rounds_of(await played(replay(path=str(file)))) == all_rounds()
    assert [path.name for path in file.parent.iterdir() if path.name.startswith("rounds")] == [name]


async def test_an_export_has_the_requested_range_and_filter(relay: Relay, tmp_path: Path) -> None:
    """It has the rounds of one game between two times, both included."""
    file = tmp_path / "some.jsonl"

    await ran(
        *("export", str(file), "--game", "crash", "--from", at(100), "--to", at(200), "--where", "min_point=7"),
        *("--url", relay.url()),
    )

    assert [json.loads(line)["round_id"] for line in file.read_text().splitlines()] == list(range(100, 201, 10))
    assert "cursor" not in file.read_text()


async def test_an_export_whose_range_has_expired_from_the_log_is_incomplete(relay: Relay, tmp_path: Path) -> None:
    """The file has the remaining rounds, and the status is 1. Without --from, an export of that log is complete."""
    some, everything = tmp_path / "some.jsonl", tmp_path / "all.jsonl"
    await relay.log.purge_up_to(100)

    lacking = await ran("export", str(some), "--game", "crash", "--from", at(1), "--to", at(60), "--url", relay.url())
    whole = await ran("export", str(everything), "--game", "crash", "--url", relay.url())

    assert lacking.code == 1
    assert f"{some} is incomplete" in lacking.err
    assert "(expired)" in lacking.err
    assert [json.loads(line)["round_id"] for line in some.read_text().splitlines()] == list(range(51, 61))
    assert (whole.code, len(everything.read_text().splitlines())) == (0, COUNT - 50)


async def test_an_export_stops_where_the_log_was_rebuilt(relay: Relay, tmp_path: Path) -> None:
    """The new log may have rounds that are written already; no round is in the file twice."""
    file = tmp_path / "rounds.jsonl"
    until = "9999-01-01T00:00:00Z"
    async with started("export", str(file), "--game", "crash", "--to", until, "--url", relay.url()) as process:
        async with watch(relay.url(), "crash", after=relay.log.cursor(2 * COUNT)) as live:
            await live.until(lambda message: message.get("event") == "hello")
            async with aiohttp.ClientSession() as session:
                await metric_becomes(session, relay.url(), "relay_rounds_replayed_total", COUNT)
            await relay.log.rebuild()
            await relay.log.store(*all_rounds()[:10])
            await live.until_round(5)
        _, err = await process.communicate()

    assert process.returncode == 1
    assert "is incomplete" in err.decode()
    written = [json.loads(line)["round_id"] for line in file.read_text().splitlines()]
    assert written == list(range(1, COUNT + 1))


async def test_an_existing_file_is_not_overwritten(relay: Relay, tmp_path: Path) -> None:
    """The command stops before any request."""
    file = tmp_path / "rounds.jsonl"
    file.write_text("mine")

    assert_one_line(await ran("export", str(file), "--url", relay.url()), "exists already")
    assert file.read_text() == "mine"


async def test_an_export_that_the_relay_refuses_leaves_nothing_behind(relay: Relay, tmp_path: Path) -> None:
    """There is no file, not even an empty one."""
    folder = tmp_path / "exports"
    folder.mkdir()

    result = await ran("export", str(folder / "a.jsonl"), "--game", "chess", "--url", relay.url())

    assert_one_line(result, "chess")
    assert list(folder.iterdir()) == []


async def test_an_export_that_is_interrupted_leaves_nothing_behind(relay: Relay, tmp_path: Path) -> None:
    """Until the end the file has another name, and Ctrl-C removes it."""
    folder = tmp_path / "exports"
    folder.mkdir()
    file = folder / "a.jsonl.gz"
    async with started("export", str(file), "--to", "9999-01-01T00:00:00Z", "--url", relay.url()) as process:
        assert await until(lambda: list(folder.iterdir())) != [file]

        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130

    assert list(folder.iterdir()) == []


async def test_a_gzip_recording_is_complete(relay: Relay, tmp_path: Path) -> None:
    """Other programs can read it too."""
    file = tmp_path / "rounds.jsonl.gz"

    await ran("export", str(file), "--game", "dice", "--url", relay.url())

    assert len(gzip.decompress(file.read_bytes()).splitlines()) == COUNT


# --- pipes and terminals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "--last", "300"),
        ("history", "--limit", "600", "--format", "jsonl"),
        ("history", "--limit", "600", "--format", "csv"),
        ("history", "--limit", "600"),
    ],
)
async def test_a_closed_pipe_ends_the_command_quietly(relay: Relay, arguments: tuple[str, ...]) -> None:
    """With ``| head -1``, stderr is empty."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)  # less than each command prints
    async with started(*arguments, "--url", relay.url(), stdout=writing) as process:
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1)
        os.close(reading)
        _, err = await process.communicate()

    assert err == b""
    assert process.returncode == 128 + signal.SIGPIPE


async def test_progress_is_shown_only_on_a_terminal(relay: Relay, tmp_path: Path) -> None:
    """A progress bar is never written to a log file."""
    ours, theirs = pty.openpty()
    async with started("export", str(tmp_path / "a.jsonl"), "--url", relay.url(), stderr=theirs) as process:
        shown = asyncio.create_task(asyncio.to_thread(_all_of, ours))
        await process.wait()
        os.close(theirs)
        on_terminal = await shown
    elsewhere = await ran("export", str(tmp_path / "b.jsonl"), "--url", relay.url())

    assert "export to a.jsonl" in on_terminal
    assert "%" in on_terminal
    assert "\x1b[" in on_terminal
    assert elsewhere.err == f"{2 * COUNT} rounds written to {tmp_path / 'b.jsonl'}\n"


async def test_a_bounded_replay_into_a_file_shows_progress(relay: Relay, tmp_path: Path) -> None:
    """The bar is on the terminal. When rounds are printed on the terminal, no bar is shown."""
    ours, theirs = pty.openpty()
    with (tmp_path / "rounds").open("wb") as file:
        bounded = ("replay", "crash", "--from", at(1), "--to", at(COUNT), "--speed", "400", "--url", relay.url())
        async with started(*bounded, stdout=file, stderr=theirs) as process:
            shown = asyncio.create_task(asyncio.to_thread(_all_of, ours))
            assert await process.wait() == 0
            os.close(theirs)
            on_terminal = await shown

    assert "replay of crash" in on_terminal
    assert "%" in on_terminal
    assert len((tmp_path / "rounds").read_bytes().splitlines()) == COUNT


def _all_of(terminal: int) -> str:
    data = b""
    try:
        while piece := os.read(terminal, 4096):
            data += piece
    except OSError:  # EIO: the other side is closed
        pass
    os.close(terminal)
    return data.decode()
