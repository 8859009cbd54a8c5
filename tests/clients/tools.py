"""Third-party programs and packages that tests need: found, installed once, or a skip with the reason."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_INSTALL_S: Final = 100.0
_BUILD_S: Final = 600.0


def tool(name: str) -> str:
    """Return the path of a program; skip the test, naming it, when this machine has none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def node_packages(folder: Path) -> None:
    """Install what a folder's package-lock.json pins, once; skip the test when no registry can be reached."""
    npm = tool("npm")
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    with _alone(folder):
        if not stamp.exists() or stamp.read_text("ascii") != wanted:
            _install([npm, "ci", "--no-audit", "--no-fund"], folder)
            stamp.write_text(wanted, "ascii")


def go_modules(folder: Path) -> None:
    """Download what a folder's go.sum pins; skip the test when the module proxy cannot be reached."""
    go = tool("go")
    with _alone(folder):
        _install([go, "mod", "download"], folder)


def go_program(folder: Path) -> str:
    """Return the program of a folder's Go module, built once."""
    go = tool("go")
    return (
        _built(folder, "*.go", "go.*", by=lambda to: [[go, "build", "-o", str(to / folder.name), "."]])
        + f"/{folder.name}"
    )


def java_classes(folder: Path) -> str:
    """Return the class path of a folder's Java program and what its pom.xml names, built once."""
    maven, javac = tool("mvn"), tool("javac")
    pom = ["-f", "pom.xml", "dependency:copy-dependencies"]
    sources = [str(path) for path in sorted(folder.glob("*.java"))]
    built = _built(
        folder,
        "*.java",
        "pom.xml",
        by=lambda to: [
            [maven, "-q", "-B", *pom, f"-DoutputDirectory={to}/lib"],
            [javac, "-cp", f"{to}/lib/*", "-d", str(to), *sources],
        ],
    )
    return f"{built}:{built}/lib/*"


def rust_program(folder: Path, name: str) -> str:
    """Return a program of a folder's Rust crate, built once: that takes about a minute of CPU time."""
    cargo = tool("cargo")
    build = [cargo, "build", "--quiet", "--locked", "--target-dir"]
    return _built(folder, "src/*.rs", "Cargo.*", by=lambda to: [[*build, str(to)]]) + f"/debug/{name}"


def _built(folder: Path, *sources: str, by: Callable[[Path], list[list[str]]]) -> str:
    """Run the commands that `by` returns for a target folder, unless they were run for these sources; return it."""
    files = sorted(file for pattern in sources for file in folder.glob(pattern))
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    target = ROOT / ".cache" / "built" / str(folder.relative_to(ROOT)).replace("/", "-")
    stamp = target / ".built"
    with _alone(folder):
        if not stamp.exists() or stamp.read_text("ascii") != wanted:
            target.mkdir(parents=True, exist_ok=True)
            for command in by(target):
                _install(command, folder, within_s=_BUILD_S)
            stamp.write_text(wanted, "ascii")
    return str(target)


def python_program(name: str) -> str:
    """Return a program from PyPI in an environment of its own, with the versions that .ci/NAME.lock pins.

    Installs it once; skips the test when no registry can be reached.
    """
    lock, folder = ROOT / ".ci" / f"{name}.lock", ROOT / ".cache" / name
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = folder / ".installed"
    with _alone(folder):
        if not stamp.exists() or stamp.read_text("ascii") != wanted:
            _install([sys.executable, "-m", "venv", "--clear", str(folder)], ROOT)
            _install([str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(lock)], ROOT)
            stamp.write_text(wanted, "ascii")
    return str(folder / "bin" / name)


def _install(command: list[str], folder: Path, *, within_s: float = _INSTALL_S) -> None:
    what = f"{Path(command[0]).name} {' '.join(command[1:])} in {folder.relative_to(ROOT)}"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=within_s, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} got no answer in {within_s:.0f} s")
    if done.returncode:
        # npm and go both print the cause first.
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[0]
        pytest.skip(f"{what} failed: {reason}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other test processes from installing into the same folder at the same time."""
    locks = ROOT / ".cache"
    locks.mkdir(exist_ok=True)
    handle = os.open(
        locks / f"install-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}.lock", os.O_CREAT | os.O_RDWR
    )
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
