"""A person who watches sees how far a replay is; nobody else gets a bar in their logs."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backends.file import FileReplay
from backends.file.progress import ProgressBar
from tests.backends.file.replaying import CONTEXT, played, rounds, write


def test_bar_shows_share_and_rounds() -> None:
    """Bytes of the files as they lie on disk make the share; names are shown as they are."""
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
async def test_bar_is_for_a_person_and_for_a_replay_that_ends(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    interactive: bool,
    options: dict[str, object],
    shown: bool,
) -> None:
    """It is on stderr: stdout belongs to output."""
    path = write(tmp_path / "a.jsonl", rounds(5))
    backend = FileReplay({"path": str(path), "speed": "max", **options}, replace(CONTEXT, interactive=interactive))

    await played(backend, stop_after=5)

    captured = capsys.readouterr()
    assert ("a.jsonl" in captured.err) is shown
    assert "100%" not in captured.out
