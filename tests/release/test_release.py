"""`.ci/release` refuses an inconsistent release, and compares what it built with what is in git."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_CHANGELOG: Final = """# Changelog

Some words.

## [0.2.0] - 2026-02-03

### Streams

- A stream of lines.

## [0.1.0] - 2026-01-02

- The first one.
"""


def load() -> ModuleType:
    """Import the script, whose name does not fit an import statement."""
    loader = SourceFileLoader("release", str(_ROOT / ".ci/release"))
    spec = spec_from_loader("release", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


release = load()


def refusal(text: str, version: str, tag: str | None) -> str:
    """Return the error for a changelog."""
    with pytest.raises(release.ReleaseError) as refused:
        release.changelog_section(text, version, tag=tag)
    return str(refused.value)


def test_notes_are_the_first_section() -> None:
    """All of it, without its heading and without the section of the version before."""
    notes = release.changelog_section(_CHANGELOG, "0.2.0", tag="v0.2.0")

    assert notes == "### Streams\n\n- A stream of lines."


def test_notes_of_this_repository_are_there() -> None:
    """The version in pyproject.toml is the one that CHANGELOG.md begins with, before its release and after."""
    version = release.tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]

    notes = release.changelog_section((_ROOT / "CHANGELOG.md").read_text(), version, tag=None)
    assert "\n### Streams\n" in notes
    assert "\n## " not in notes


def test_tag_of_another_version_is_refused() -> None:
    assert refusal(_CHANGELOG, "0.2.0", "v0.3.0") == (
        "the tag is v0.3.0, and pyproject.toml has version 0.2.0: tag v0.2.0, or change it"
    )


@pytest.mark.parametrize("text", [_CHANGELOG, "# Changelog\n", _CHANGELOG.replace("[0.2.0] -", "0.2.0")])
def test_changelog_of_another_version_is_refused(text: str) -> None:
    """The first section counts, and its heading has one form."""
    assert "begin it with '## [0.1.0] - Unreleased', or with the date of the release" in refusal(text, "0.1.0", None)


@pytest.mark.parametrize(
    ("date", "tag", "refused"),
    [("Unreleased", None, False), ("Unreleased", "v0.2.0", True), ("soon", None, True), ("2026-02-30", None, True)],
)
def test_release_needs_its_date(date: str, tag: str | None, refused: bool) -> None:
    """A tagged version has a date; without a tag it may say Unreleased."""
    text = _CHANGELOG.replace("2026-02-03", date)
    if refused:
        assert refusal(text, "0.2.0", tag) == (
            f"CHANGELOG.md dates version 0.2.0 {date!r}: give the date of the release, such as 2026-01-31"
        )
    else:
        assert release.changelog_section(text, "0.2.0", tag=tag)


def test_empty_section_is_refused() -> None:
    text = "## [0.2.0] - Unreleased\n\n## [0.1.0] - 2026-01-02\n\n- The first one.\n"

    assert refusal(text, "0.2.0", None) == "CHANGELOG.md has no text under version 0.2.0: write what is new for users"


@pytest.mark.service
def test_fault_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    """The tag, the version and the changelog are read before anything is built."""
    (tmp_path / ".ci").mkdir()
    for name in (".ci/release", "pyproject.toml", "CHANGELOG.md"):
        shutil.copy(_ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, tmp_path / ".ci/release", "--build", "v9.9.9"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("release: the tag is v9.9.9, and pyproject.toml has version ")


@pytest.mark.parametrize(
    ("added", "removed", "fault"),
    [
        (["tests/test_a.py"], [], "a.whl has a file too many: tests/test_a.py (1 in all); are all files in git?"),
        ([], ["stream/data.sql"], "a.whl lacks a file: stream/data.sql (1 in all); are all files in git?"),
        ([], ["stream/page.html"], "a.whl lacks a file: stream/page.html (1 in all); are all files in git?"),
    ],
)
def test_wheel_with_other_files_than_our_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: list[str], removed: list[str], fault: str
) -> None:
    """A wheel has the files of the packages in git, those added from elsewhere, and the metadata, and no others."""
    tracked = ["src/stream/__init__.py", "src/stream/data.sql"]
    monkeypatch.setattr(release, "git", lambda *_: tracked)
    target = {"packages": ["src/stream"], "force-include": {"samples/page.html": "stream/page.html"}}
    names = {"stream/__init__.py", "stream/data.sql", "stream/page.html", "stream-1.dist-info/METADATA"}

    release.check_wheel(wheel_of(tmp_path / "whole.whl", names), target)
    with pytest.raises(release.ReleaseError) as refused:
        release.check_wheel(wheel_of(tmp_path / "a.whl", (names | set(added)) - set(removed)), target)

    assert str(refused.value) == fault


def wheel_of(file: Path, names: set[str], content: bytes = b"") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(names):
            archive.writestr(name, content)
    return file


def test_wheel_of_a_processor_has_the_compiled_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the wheel for any platform has none."""
    monkeypatch.setattr(release, "git", lambda *_: ["relay/a.py"])
    target = {"packages": ["relay"]}
    compiled = wheel_of(tmp_path / "s-1-cp311-abi3-manylinux_2_17_aarch64.whl", {"relay/a.py", release.LOOP})
    plain = wheel_of(tmp_path / "s-1-py3-none-any.whl", {"relay/a.py"})

    release.check_wheel(compiled, target)
    release.check_wheel(plain, target)
    for other in (
        wheel_of(compiled, {"relay/a.py"}),
        wheel_of(plain, {"relay/a.py", release.LOOP}),
    ):
        with pytest.raises(release.ReleaseError, match=r"relay/live/sending/_send_loop\.abi3\.so"):
            release.check_wheel(other, target)


def test_compiled_loop_needs_no_newer_libc_than_its_tag_says(tmp_path: Path) -> None:
    wheel = tmp_path / "s-1-cp311-abi3-manylinux_2_17_x86_64.whl"

    release.check_compiled(wheel_of(wheel, {release.LOOP}, b"\0GLIBC_2.2.5\0GLIBC_2.17\0"))
    with pytest.raises(release.ReleaseError) as refused:
        release.check_compiled(wheel_of(wheel, {release.LOOP}, b"\0GLIBC_2.2.5\0GLIBC_2.34\0"))
    assert str(refused.value) == f"{wheel.name} needs glibc 2.34: use functions of older ones in C"


def test_image_steps_need_the_compiler_that_the_image_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian packages are not installed on this machine."""
    containerfile = tmp_path / "Containerfile"
    containerfile.write_text("FROM a AS build\nRUN apt-get update && apt-get install -y gcc && false\nFROM a\n")
    monkeypatch.setattr(release, "CONTAINERFILE", containerfile)
    monkeypatch.setattr(release.shutil, "which", lambda _: "/usr/bin/gcc")
    release.run_image_steps(tmp_path / "root")

    monkeypatch.setattr(release.shutil, "which", lambda _: None)
    with pytest.raises(release.ReleaseError) as refused:
        release.run_image_steps(tmp_path / "other")
    assert str(refused.value) == "infra/Containerfile installs gcc, which this machine lacks: install it"


def test_steps_of_the_image_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the first stage run in order, in a folder instead of the file system; later stages do not."""
    (tmp_path / "infra").mkdir()
    (tmp_path / "code/inner").mkdir(parents=True)
    (tmp_path / "code/inner/a.py").write_text("a")
    (tmp_path / "one.lock").write_text("one")
    containerfile = tmp_path / "infra/Containerfile"
    containerfile.write_text(
        "FROM python AS build\nWORKDIR /src\n# a word\nCOPY one.lock ./\nCOPY code code\n"
        "RUN mkdir -p /opt/here \\\n    && cat one.lock code/inner/a.py > /opt/here/both\n"
        "FROM python\nRUN false\n"
    )
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "CONTAINERFILE", containerfile)
    root = tmp_path / "root"

    release.run_image_steps(root)
    assert (root / "opt/here/both").read_text() == "onea"

    containerfile.write_text("FROM python\nRUN cat missing\nFROM python\n")
    with pytest.raises(release.ReleaseError, match=r"failed with 1, see above: sh -c 'cat missing'"):
        release.run_image_steps(root)


def test_publishing_needs_the_files_that_were_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has changed since SHA256SUMS was written is not published."""
    monkeypatch.setattr(release, "DIST", tmp_path)
    (tmp_path / "a.whl").write_bytes(b"")
    (tmp_path / "SHA256SUMS").write_text(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a.whl\n"  # of nothing
    )
    release.check_sums()

    (tmp_path / "a.whl").write_bytes(b"other")
    with pytest.raises(release.ReleaseError) as refused:
        release.check_sums()
    assert str(refused.value) == "dist/a.whl is not the file of dist/SHA256SUMS: build again"


def test_actions_of_the_workflows_are_pinned() -> None:
    """By commit, with the version as a comment, since a tag can be moved."""
    for workflow in (_ROOT / ".github/workflows").iterdir():
        used = re.findall(r"uses: (.*)", workflow.read_text())
        assert used, workflow
        for action in used:
            assert re.fullmatch(r"\./\.github/workflows/ci\.yml|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
