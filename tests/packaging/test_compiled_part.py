"""What hatch_build.py adds to a wheel: the loop in C where there is a compiler, and nothing where there is none."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.clients.tools import tool

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", ".gitignore", "samples/browser/index.html")
LOOP: Final = "relay/live/sending/_send_loop"


def load() -> ModuleType:
    """Import the build hook, which is in no package."""
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is made of: builds compile into their source tree."""
    tree = tmp_path_factory.mktemp("tree")
    target = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in target["packages"]:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in FILES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    return tree


def build(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel into ``dist``, which is empty before."""
    shutil.rmtree(tree / "dist", ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    return subprocess.run(command, cwd=tree, env=os.environ | environment, capture_output=True, text=True, check=False)


def built(tree: Path, **environment: str) -> tuple[str, set[str]]:
    """Build a wheel; return its tag, and its files of the loop."""
    done = build(tree, **environment)
    assert done.returncode == 0, done.stderr
    [wheel] = (tree / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        return wheel.stem.split("-", 2)[2], {name for name in archive.namelist() if name.startswith(LOOP)}


@pytest.mark.service
def test_loop_compiles_without_a_warning(tmp_path: Path) -> None:
    tool("gcc")
    fault = load().compile_fault(ROOT, "-Wall", "-Wextra", "-Wshadow", "-Werror", output=tmp_path / "loop.so")

    assert fault is None


@pytest.mark.service
def test_wheel_has_the_loop_for_its_platform(tree: Path) -> None:
    """One wheel serves all versions of CPython."""
    tool("gcc")
    tag, files = built(tree)

    assert tag == "cp311-abi3-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert files == {f"{LOOP}.abi3.so", f"{LOOP}.c", f"{LOOP}.pyi"}
    assert built(tree, STREAM_RELAY_PLATFORM="manylinux_2_17_riscv64")[0] == "cp311-abi3-manylinux_2_17_riscv64"


@pytest.mark.service
@pytest.mark.parametrize(
    "environment",
    [
        {"CC": "false"},
        {"CC": "/no/such/compiler"},
        {"STREAM_RELAY_COMPILE": "never"},
        {"STREAM_RELAY_COMPILE": "", "CC": "false"},
    ],
    ids=str,
)
def test_wheel_without_a_compiler_is_for_any_platform(tree: Path, environment: dict[str, str]) -> None:
    """A loop that an earlier build has left is not in it."""
    (tree / f"{LOOP}.abi3.so").touch()

    assert built(tree, **environment) == ("py3-none-any", {f"{LOOP}.c", f"{LOOP}.pyi"})
    assert not (tree / f"{LOOP}.abi3.so").exists(), "an editable installation would load it"


@pytest.mark.service
@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        (
            {"STREAM_RELAY_COMPILE": "always", "CC": "false"},
            f"{LOOP}.c was not compiled: false failed with status 1",
        ),
        (
            {"STREAM_RELAY_COMPILE": "always", "CC": "/no/cc"},
            f"{LOOP}.c was not compiled: /no/cc: No such file or directory",
        ),
        (
            {"STREAM_RELAY_COMPILE": "perhaps"},
            "STREAM_RELAY_COMPILE='perhaps' is not allowed: use auto, always, never",
        ),
    ],
)
def test_fault_of_a_build_is_one_sentence(tree: Path, environment: dict[str, str], fault: str) -> None:
    done = build(tree, **environment)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [fault]
