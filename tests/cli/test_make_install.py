"""`make install` as a user sees it, with a program in place of pip whose steps the test controls."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

import pytest

pytestmark = pytest.mark.service

_ROOT: Final = Path(__file__).parents[2]
# Stands in for .venv/bin/python. Between two steps of its "pip install" it waits for a line in the pipe `go`.
_PYTHON: Final = """#!/bin/sh
cd "$(dirname "$0")/../.."
case "$*" in
  -c*) echo "$PWD/site" ;;
  *" -r "*)
    echo $$ > pip.pid
    echo "Collecting one==1.0 (from -r requirements-dev.lock (line 1))"; read step < go.1
    if [ -e broken ]; then echo "ERROR: no such package"; echo "more of pip"; exit 1; fi
    for name in two three four; do echo "Collecting $name==1.0"; done
    mkdir site/one.dist-info site/two.dist-info
    echo "Installing collected packages: one, two, three, four"; read step < go.2 ;;
esac
"""


class Install:
    """`make install` in a temporary folder. Leaving the block ends it."""

    def __init__(self, folder: Path, out: int, printed: IO[bytes] | None = None) -> None:
        self.folder = folder
        self._make = subprocess.Popen(
            ["make", "--no-print-directory", "install"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._printed = printed or self._make.stdout
        self._seen = b""
        self._step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._make.pid, signal.SIGKILL)
        self._make.communicate()

    def sees(self, text: bytes) -> None:
        """Read the output until it contains `text`; fail when the output ends before."""
        while text not in self._seen:
            assert self._printed is not None
            more = os.read(self._printed.fileno(), 4096)
            assert more, f"ended without {text!r}: {self._seen!r}"
            self._seen += more

    def next_step(self) -> None:
        """Let pip do its next step. Each has a pipe of its own: a step that ends late must not start the next one."""
        self._step += 1
        (self.folder / f"go.{self._step}").write_bytes(b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C: the signal goes to make and to all that it started."""
        os.killpg(self._make.pid, signal.SIGINT)

    def ended(self) -> tuple[int, str]:
        """Wait for the end; return the status of make and what it printed as errors."""
        _, errors = self._make.communicate(timeout=30)
        return self._make.returncode, errors.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with the files that `make install` needs, a lock of four packages, and the program for pip."""
    (tmp_path / "infra").mkdir()
    for name in ("Makefile", "pyproject.toml", "infra/pip-install.sh"):
        shutil.copy(_ROOT / name, tmp_path / name)
    (tmp_path / "requirements-dev.lock").write_text("one==1.0\ntwo==1.0\nthree==1.0\nfour==1.0\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(_PYTHON)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / "site/pip.dist-info").mkdir(parents=True)
    os.mkfifo(tmp_path / "go.1")
    os.mkfifo(tmp_path / "go.2")
    return tmp_path


@pytest.fixture
def terminal() -> Iterator[tuple[int, IO[bytes]]]:
    """The side of a terminal that a program writes to, and the side that shows it."""
    shown, written = pty.openpty()
    with os.fdopen(shown, "rb", buffering=0) as screen:
        yield written, screen
    os.close(written)


def test_progress_is_a_line_per_quarter_without_a_terminal(folder: Path) -> None:
    """Each line has the number of packages that are ready: first collected, then installed."""
    with Install(folder, subprocess.PIPE) as install:
        install.sees(b"    collecting 1/4\n")
        install.next_step()
        install.sees(b"    installing 2/4\n")
        install.next_step()

        install.sees(b"3/3 installing stream-relay itself\n")
        assert install.ended() == (0, "")
        assert (folder / ".venv/.ready").exists()


def test_progress_is_one_line_that_moves_on_a_terminal(folder: Path, terminal: tuple[int, IO[bytes]]) -> None:
    """The line has the package and the seconds, is overwritten in place, and is erased at the end."""
    written, screen = terminal
    with Install(folder, written, screen) as install:
        install.sees(b"\r\x1b[K    collecting 1/4 one, ")
        install.sees(b" s\r\x1b[K    collecting 1/4 one, ")
        install.next_step()
        install.sees(b"\r\x1b[K    installing 2/4, ")
        install.next_step()

        install.sees(b"\r\x1b[K3/3 installing stream-relay itself\r\n")
        assert install.ended() == (0, "")


def test_failed_install_ends_with_one_sentence(folder: Path) -> None:
    """The sentence has pip's error and the path of the full output; the next `make` installs again."""
    (folder / "broken").touch()
    with Install(folder, subprocess.PIPE) as install:
        install.sees(b"collecting 1/4")
        install.next_step()
        status, errors = install.ended()

        sentence, by_make = errors.splitlines()
        assert sentence == (
            "Installing failed (is a package registry reachable?): ERROR: no such package;"
            " all of it is in .venv/install.log"
        )
        assert by_make.endswith("Error 1")
        assert status == 2
        assert "more of pip" in (folder / ".venv/install.log").read_text()
        assert not (folder / ".venv/.ready").exists()


def test_ctrl_c_during_the_install_is_quiet(folder: Path) -> None:
    """It prints nothing, pip is stopped too, and the next `make` installs again."""
    with Install(folder, subprocess.PIPE) as install:
        install.sees(b"collecting 1/4")
        install.interrupt()

        assert install.ended() == (-signal.SIGINT, "")
        assert not Path("/proc", (folder / "pip.pid").read_text().strip()).exists()
        assert not (folder / ".venv/.ready").exists()
