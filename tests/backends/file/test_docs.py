"""The options and examples of docs/file-replay.md are correct."""

import gzip
import os
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backends.file import FileReplay
from backends.file.file_options import FileOptions
from backends.file.recording.formats import FORMATS, parser_for
from relay.config.settings import load
from rounds import Round
from tests.backends.file.replaying import CONTEXT, StoppedClock, jsonl, names_in, played, replay, round_at, rounds_of

DOCS = (Path(__file__).parents[3] / "docs" / "file-replay.md").read_text("utf-8")
NOON_MS = 1_768_737_600_000
"""2026-01-18T12:00:00Z."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def recorded() -> list[Round]:
    return [round_at(n, at_ms=NOON_MS + n * 3_600_000, game=game) for n in range(-3, 9) for game in ("crash", "dice")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the files that the examples name, in the working directory, and unset all variables of ours."""
    (tmp_path / "monday.jsonl.gz").write_bytes(gzip.compress(jsonl(recorded())))
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "1.jsonl").write_bytes(jsonl(recorded()) + b"no round\n")
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    return tmp_path


def test_table_names_every_option_and_its_default() -> None:
    """The table has every option and no other, and each default is the real one."""
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", DOCS.partition("## Options")[2], re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    defaults = {field.alias or name: field.default for name, field in FileOptions.model_fields.items()}

    assert set(documented) == set(defaults)
    for name, shown in documented.items():
        if shown.startswith("`"):
            assert FileOptions.parse({"path": "x", name: shown.strip("`")}, CONTEXT.catalogue) == FileOptions.parse(
                {"path": "x"}, CONTEXT.catalogue
            )


@pytest.mark.parametrize("command", [block for block in blocks("sh") if "|" not in block])
async def test_shell_example_plays_the_documented_rounds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The variables of the command, read as `stream-relay ingest` reads them, select the rounds."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[-2:] == ["stream-relay", "ingest"]
    for name, _, value in (word.partition("=") for word in words[:-2]):
        monkeypatch.setenv(name, value)
    settings = load().backend
    clock = StoppedClock()

    found = rounds_of(await played(FileReplay(settings.options, CONTEXT, clock=clock)))

    assert settings.name == "file"
    if "GAMES" in command:
        assert found == [round_ for round_ in recorded()[6:18] if round_.game_slug == "crash"]
        assert clock.passed_s == pytest.approx(5 * 360)
    else:
        assert found == recorded()
    if "STATE" in command:
        assert any("state" in name for name in names_in(folder))
    if "REJECTS" in command:
        assert len((folder / "rejects.jsonl").read_text().splitlines()) == 1


async def test_pipe_example_reads_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of another program is played."""
    (command,) = (block for block in blocks("sh") if "|" in block)
    words = shlex.split(command.partition("|")[2])
    assert words[2:] == ["stream-relay", "ingest"]
    variables = dict(word.split("=", 1) for word in words[:2])
    options = {name.removeprefix("RELAY_BACKEND_").lower(): value for name, value in variables.items()}
    (folder / "printed").write_bytes(jsonl(recorded()))
    with (folder / "printed").open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)

        assert rounds_of(await played(FileReplay(options, CONTEXT))) == recorded()


async def test_settings_file_example_loops_as_if_live(folder: Path) -> None:
    """Each round of the loop has its own id, and no pause is longer than ``max_gap_s``."""
    (example,) = blocks("toml")
    section: dict[str, Any] = tomllib.loads(example)["backend"]
    assert section.pop("name") == "file"
    (folder / "days" / "1.jsonl").write_bytes(jsonl(recorded()))
    clock = StoppedClock(1_800_000_000_000)

    found = rounds_of(await played(replay(clock, **section), stop_after=60))

    assert len({round_.round_id for round_ in found}) == 60
    assert {b.timestamp - a.timestamp for a, b in pairwise(found)} <= {0, 100, 3000}


def test_lines_that_show_the_formats_are_rounds() -> None:
    """The JSONL and the CSV example are the same round."""
    csv = parser_for(FORMATS["csv"])
    *_, from_csv = (csv.parse(line.encode()) for line in blocks("csv")[0].splitlines())

    assert from_csv is not None
    assert from_csv == Round.parse(blocks("json")[0])
