"""A progress bar is shown on a terminal, and never written to a log."""

import asyncio
import contextlib
import io
import os
import pty
import re
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backends.file import FileReplay
from backends.file.progress import ProgressBar
from tests.backends.file.replaying import CONTEXT, played, rounds, write
from tests.cli.command import COMMAND
from tests.clients.program import clean_environment
from tests.nats import NatsServer


def test_bar_shows_share_and_rounds() -> None:
    """The share is of the bytes on disk; a name is shown without markup."""
    out = io.StringIO()

    with ProgressBar("[bold]a.jsonl", 200, Console(file=out, force_terminal=True, width=100)) as bar:
        bar.show(50, 1)
        bar.show(150, 1234)

    assert "[bold]a.jsonl" in out.getvalue()
    assert " 25%" in out.getvalue()
    assert " 75%" in out.getvalue()
    assert "1,234 rounds" in out.getvalue()


@pytest.mark.parametrize(
    ("interactive", "options", "shown"),
    [(True, {}, True), (False, {}, False), (True, {"loop": True}, False)],
)
async def test_bar_is_shown_only_on_a_terminal_and_for_a_replay_that_ends(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    interactive: bool,
    options: dict[str, object],
    shown: bool,
) -> None:
    """The bar is on stderr, not on stdout."""
    path = write(tmp_path / "a.jsonl", rounds(5))
    backend = FileReplay({"path": str(path), "speed": "max", **options}, replace(CONTEXT, interactive=interactive))

    await played(backend, stop_after=5)

    captured = capsys.readouterr()
    assert ("a.jsonl" in captured.err) is shown
    assert "100%" not in captured.out


@pytest.mark.parametrize("option", [{"to": "2026-01-18T10:00:02Z"}, {"games": "crash"}, {}])
async def test_bar_of_a_finished_replay_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: dict[str, object]
) -> None:
    """The bar is full also when the last rounds of the files are not selected."""
    path = write(tmp_path / "a.jsonl", rounds(5) + rounds(3_000, first=5, game="dice"))
    backend = FileReplay({"path": str(path), "speed": "max", **option}, replace(CONTEXT, interactive=True))

    await played(backend)

    assert "100%" in capsys.readouterr().err.splitlines()[-1]


async def test_bar_moves_while_nothing_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skipping rounds that are not selected takes time too."""
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(ProgressBar, "show", lambda _, done, count: shown.append((done, count)))
    path = write(tmp_path / "a.jsonl", rounds(3_000, game="dice") + rounds(1))
    backend = FileReplay({"path": str(path), "speed": "max", "games": "crash"}, replace(CONTEXT, interactive=True))

    await played(backend)

    assert [done for done, count in shown if count == 0 and done < path.stat().st_size]


@pytest.mark.service
async def test_lines_of_the_log_stand_above_the_bar(tmp_path: Path, nats: NatsServer) -> None:
    """On a terminal every log line is complete, and the full bar has its own line."""
    path = write(tmp_path / "a.jsonl", rounds(2_000))
    with path.open("ab") as file:
        file.write(b"no round\n" * 3)
    options = {"PATH": path, "SPEED": "max", "REJECTS_FILE": tmp_path / "rejects", "TO": "2026-01-18T10:05:00Z"}
    environment = {f"RELAY_BACKEND_{name}": str(value) for name, value in options.items()}

    seen = await screen_of("ingest", **environment, RELAY_NATS_URL=nats.url)

    [bar] = [line for line in seen if line.startswith("a.jsonl")]
    assert "100%" in bar
    assert "300 rounds" in bar
    events = [line for line in seen if "ingest_started" in line or "round_rejected" in line or "replay_fin" in line]
    assert len(events) == 5
    assert all(re.fullmatch(r"\[\w+ +\] \w+ .* time=\S+Z", line) for line in events)


async def screen_of(*arguments: str, **environment: str) -> list[str]:
    """Return the lines on a wide terminal after a command has ended."""
    own = {name: value for name, value in clean_environment().items() if name not in ("COLUMNS", "LINES")}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (200, 400))
    process = await asyncio.create_subprocess_exec(
        COMMAND, *arguments, stdin=theirs, stdout=theirs, stderr=theirs,
        env=own | {"TERM": "xterm"} | environment,
    )  # fmt: skip
    os.close(theirs)
    printed = await asyncio.to_thread(everything, ours)
    assert await process.wait() == 0, printed
    return shown(printed)


def everything(terminal: int) -> str:
    """Read a terminal until its last writer has closed it."""
    data = b""
    with contextlib.suppress(OSError):  # Linux reports the end as EIO
        while piece := os.read(terminal, 1 << 16):
            data += piece
    os.close(terminal)
    return data.decode()


def shown(printed: str) -> list[str]:
    """Apply text, carriage returns and the control sequences in use, as a terminal does; ignore colors."""
    lines, row, column = [""], 0, 0
    for control, argument, code, text in re.findall(r"(\x1b\[([0-9;?]*)([A-Za-z])|[\r\n])|([^\x1b\r\n]+)", printed):
        if text:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code == "A":
            row -= int(argument or 1)
        elif code == "K":
            assert argument == "2"
            lines[row] = ""
        else:
            assert code in "mhl", control
    return lines
