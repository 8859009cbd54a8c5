"""The public names for writers of backends, and the error when another folder has the name of one of our packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stream_relay
from stream_relay.rooms import ROOMS, shadowed

ROOT = Path(__file__).parents[2]


def run(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder `path`, which precedes installed packages on ``sys.path``."""
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *arguments], cwd=path, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", stream_relay.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """A listed name loads, and is the object that our own code uses."""
    assert getattr(stream_relay, name).__name__ == name


def test_unknown_name_lists_the_public_ones() -> None:
    """A name that is not public raises AttributeError."""
    with pytest.raises(AttributeError, match=r"no attribute 'Hub'; public names: Backend, BackendContext, "):
        stream_relay.Hub  # noqa: B018 - the access is the test


def test_importing_the_face_loads_none_of_the_rooms(tmp_path: Path) -> None:
    """The package of a backend that is not chosen costs almost nothing."""
    result = run("-c", f"import sys, stream_relay; print(sorted(sys.modules.keys() & set({ROOMS})))", path=tmp_path)

    assert result.stdout == "[]\n"


def test_rooms_of_this_checkout_are_ours() -> None:
    """There is no error for this checkout."""
    assert shadowed() is None


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("form", ["package", "module"])
def test_command_names_the_folder_that_hides_a_room(tmp_path: Path, room: str, form: str) -> None:
    """One sentence and status 1 for each room, instead of a traceback from an import."""
    hiding = tmp_path / room / "__init__.py" if form == "package" else tmp_path / f"{room}.py"
    hiding.parent.mkdir(exist_ok=True)
    hiding.touch()

    result = run("-m", "stream_relay", "--version", path=tmp_path)

    where = hiding.parent if form == "package" else hiding
    assert result.returncode == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(
        f"stream-relay: the package {room!r} is imported from '{where}', and stream-relay is installed"
    )
    assert line.endswith("rename it, or start without its folder on the path (PYTHONPATH, or the working directory)")


def test_import_of_a_public_name_says_which_folder_hides_a_room(tmp_path: Path) -> None:
    """A writer of a backend whose tests have a folder ``auth`` gets the same error."""
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "__init__.py").touch()

    result = run("-c", "from stream_relay import Round", path=tmp_path)

    assert result.stderr.splitlines()[-1].startswith("ImportError: the package 'auth' is imported from")


def test_folder_without_init_hides_nothing(tmp_path: Path) -> None:
    """Python prefers a package over a folder without ``__init__.py``, in any order."""
    (tmp_path / "auth").mkdir()

    assert run("-c", "from stream_relay import Round", path=tmp_path).returncode == 0
