"""Files for this account alone, in a folder that other accounts can write to."""

import os
import stat
from pathlib import Path

import pytest

from backends.contract import SourceError
from backends.file.own_files import ForeignFile, open_to_append, replacing
from backends.file.recording.rejects_file import RejectsFile

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another account")
NOBODY = 65534


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder as /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_are_for_this_account_only(shared: Path) -> None:
    """Whatever the umask is, and also when a file with another mode is replaced."""
    state, rejects = shared / "state", shared / "rejects"
    state.write_bytes(b"old")
    state.chmod(0o644)
    before = os.umask(0)
    try:
        with replacing(state) as file:
            file.write(b"new")
            [aside] = shared.glob(".state.*")
            assert mode_of(aside) == 0o600
        with open_to_append(rejects) as file:
            file.write(b"one")
    finally:
        os.umask(before)

    assert (mode_of(state), mode_of(rejects)) == (0o600, 0o600)
    assert (state.read_bytes(), rejects.read_bytes()) == (b"new", b"one")
    assert set(shared.iterdir()) == {state, rejects}


def test_names_of_temporary_files_cannot_be_known(shared: Path) -> None:
    """Each has another one, and a link that waits at an earlier one is not followed."""
    victim, asides = shared / "victim", set[Path]()
    for _ in range(3):
        with replacing(shared / "state"):
            [aside] = set(shared.glob(".state.*")) - asides
        asides.add(aside)
        aside.symlink_to(victim)

    assert len(asides) == 3
    assert not victim.exists()


def test_link_at_the_place_of_a_file_is_replaced(shared: Path) -> None:
    """What it leads to stays."""
    victim, state = shared / "victim", shared / "state"
    victim.write_bytes(b"precious")
    state.symlink_to(victim)
    with replacing(state) as file:
        file.write(b"new")

    assert (victim.read_bytes(), state.read_bytes(), state.is_symlink()) == (b"precious", b"new", False)


def test_failed_write_leaves_the_file_as_it_was(shared: Path) -> None:
    """And no temporary file."""
    state = shared / "state"
    state.write_bytes(b"old")
    with pytest.raises(ValueError, match="simulated"), replacing(state):
        raise ValueError("simulated")

    assert state.read_bytes() == b"old"
    assert list(shared.iterdir()) == [state]


def test_file_of_this_account_keeps_its_mode(shared: Path) -> None:
    """An operator may let a group read it. Links of this account and devices are followed, such as /dev/stdout."""
    rejects, link = shared / "rejects", shared / "link"
    rejects.touch()
    rejects.chmod(0o640)
    link.symlink_to(rejects)
    for path in (rejects, link, Path("/dev/null")):
        with open_to_append(path) as file:
            file.write(b"x")

    assert (mode_of(rejects), rejects.read_bytes()) == (0o640, b"xx")


@as_root
@pytest.mark.parametrize("kind", ["file", "link", "link to its own file"])
def test_file_that_another_account_prepared_is_refused(shared: Path, kind: str) -> None:
    """It would read what is rejected, or redirect it to a file of ours. One sentence says so."""
    rejects, victim = shared / "rejects", shared / "victim"
    victim.write_bytes(b"precious")
    if kind == "link to its own file":
        os.chown(victim, NOBODY, NOBODY)
    if kind == "file":
        rejects.touch()
    else:
        rejects.symlink_to(victim)
    os.chown(rejects, NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(ForeignFile):
        open_to_append(rejects)
    with pytest.raises(SourceError, match=r"cannot be written: the (file|link) is of another account"):
        RejectsFile(rejects)
    assert victim.read_bytes() == b"precious"


@as_root
def test_file_of_another_account_in_a_folder_of_ours_is_used(tmp_path: Path) -> None:
    """Only who may write to the folder can have put it there."""
    rejects = tmp_path / "rejects"
    rejects.touch()
    os.chown(rejects, NOBODY, NOBODY)
    with open_to_append(rejects) as file:
        file.write(b"x")

    assert rejects.read_bytes() == b"x"
