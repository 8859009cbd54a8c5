"""A replay resumes where it was stopped, and neither loses nor repeats rounds."""

import csv
import gzip
import io
import json
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import SourceError
from backends.file.recording.formats import FIELDS
from rounds import Round
from tests.backends.file.replaying import (
    ids,
    jsonl,
    names_in,
    played,
    replay,
    rounds,
    rounds_of,
    write,
)
from tests.backends.file.test_formats import HEADER, csv_line


def recording(folder: Path, kind: str, count: int = 40) -> Path:
    """Write a recording of `count` rounds with blank lines between them."""
    if kind == "folder":
        path = folder / "days"
        path.mkdir()
        for day in range(4):
            write(path / f"{day}.jsonl", rounds(count // 4, first=day * count // 4))
        return path
    path = folder / f"a.{kind}"
    if kind.startswith("csv"):
        data = b"\n\n".join([HEADER, *map(csv_line, rounds(count))])
    else:
        data = jsonl(rounds(count)).replace(b"\n", b"\n\n")
    if kind.endswith(".gz"):
        data = gzip.compress(data)
    elif kind.endswith(".zst"):
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "folder"])
async def test_stop_in_the_middle_loses_and_repeats_nothing(tmp_path: Path, kind: str) -> None:
    """The next process starts with the first round that was not confirmed."""
    options = {"path": str(recording(tmp_path, kind)), "state_file": str(tmp_path / "state")}

    first = await played(replay(**options), stop_after=17)
    second = await played(replay(**options), stop_after=5)
    third = await played(replay(**options))

    assert rounds_of(first + second + third) == rounds(40)
    assert await played(replay(**options)) == []


@settings(max_examples=30)
@given(st.lists(st.integers(1, 15), max_size=6))
async def test_any_stops_give_every_round_once(tmp_path_factory: pytest.TempPathFactory, stops: list[int]) -> None:
    """Any number of stops, at any rounds."""
    folder = tmp_path_factory.mktemp("any-stops")
    path = write(folder / "a.jsonl", rounds(40))
    state = folder / "state"

    items = []
    for stop in stops:
        items += await played(replay(path=str(path), state_file=str(state)), stop_after=stop)
    items += await played(replay(path=str(path), state_file=str(state)))

    assert rounds_of(items) == rounds(40)


async def test_what_was_not_confirmed_comes_again(tmp_path: Path) -> None:
    """Delivery is at least once: an offset is stored only after the publisher has confirmed it."""
    path = write(tmp_path / "a.jsonl", rounds(10))
    options = {"path": str(path), "state_file": str(tmp_path / "state")}
    backend = replay(**options)
    async with backend.open():
        async for batch in backend.read():
            backend.confirm(batch[3].offset)

    assert ids(await played(replay(**options))) == [104, 105, 106, 107, 108, 109]


async def test_same_replay_opened_again_resumes_without_a_state_file(tmp_path: Path) -> None:
    """Within one process the confirmed offset is kept in memory."""
    backend = replay(path=str(write(tmp_path / "a.jsonl", rounds(10))))

    first = await played(backend, stop_after=4)
    second = await played(backend)

    assert rounds_of(first + second) == rounds(10)


async def test_file_added_to_a_folder_later_is_played_next(tmp_path: Path) -> None:
    """A folder that gets one file per day is played day by day."""
    folder = recording(tmp_path, "folder")
    options = {"path": str(folder), "state_file": str(tmp_path / "state")}
    await played(replay(**options))

    write(folder / "4.jsonl", rounds(3, first=40))

    assert rounds_of(await played(replay(**options))) == rounds(3, first=40)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.gz"])
async def test_file_that_has_grown_is_continued(tmp_path: Path, name: str) -> None:
    """What was appended is played, also by concatenation: with a byte order mark, a second header, a gzip member."""
    path = tmp_path / name
    path.write_bytes(_encoded(name, rounds(3)))
    options = {"path": str(path), "state_file": str(tmp_path / "state")}
    await played(replay(**options))
    assert await played(replay(**options)) == []

    for first in (10, 20):
        with path.open("ab") as file:
            file.write(_encoded(name, rounds(2, first=first), mark=b"\xef\xbb\xbf"))

        assert rounds_of(await played(replay(**options))) == rounds(2, first=first)


def _encoded(name: str, recorded: list[Round], mark: bytes = b"") -> bytes:
    content = jsonl(recorded)
    if ".csv" in name:
        out = io.StringIO()
        csv.writer(out).writerows([FIELDS, *([getattr(found, field) for field in FIELDS] for found in recorded)])
        content = out.getvalue().encode()
    return gzip.compress(mark + content) if name.endswith(".gz") else mark + content


async def test_state_is_written_before_the_first_round_and_replaced_in_one_step(tmp_path: Path) -> None:
    """A crash at any time leaves a readable state file, and no other file beside it."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    state = tmp_path / "state.json"
    backend = replay(path=str(path), state_file=str(state))

    async with backend.open():
        assert json.loads(state.read_bytes())["line"] == 0
    await played(backend)

    assert json.loads(state.read_bytes())["line"] == 3
    assert names_in(tmp_path) == ["a.jsonl", "state.json"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("truncated", r"'1.jsonl' has \d+ bytes and had \d+"),
        ("other beginning", "the beginning of '1.jsonl' has changed"),
        ("renamed", "it stopped in '1.jsonl', which does not exist"),
        ("file before it changed", "the files before '1.jsonl' have changed"),
        ("file before it added", "the files before '1.jsonl' have changed"),
    ],
)
async def test_state_of_another_recording_is_reported_and_not_misapplied(
    tmp_path: Path, change: str, difference: str
) -> None:
    """The sentence says what differs and what to do; the state file does not change."""
    folder = recording(tmp_path, "folder")
    state = tmp_path / "state"
    await played(replay(path=str(folder), state_file=str(state)), stop_after=15)
    kept = state.read_bytes()

    file = folder / "1.jsonl"
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif change == "other beginning":
        file.write_bytes(file.read_bytes().replace(b'"round_id":110', b'"round_id":911'))
    elif change == "renamed":
        file.rename(folder / "1b.jsonl")
    elif change == "file before it changed":
        write(folder / "0.jsonl", rounds(2))
    else:
        write(folder / "00.jsonl", rounds(2))

    with pytest.raises(SourceError, match=f"belongs to another recording: {difference}; name another state_file"):
        await played(replay(path=str(folder), state_file=str(state)))
    assert state.read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"version":2}', b"[1]", b'{"line":-1}'])
async def test_file_that_is_not_a_state_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is never overwritten: the option may name another file by mistake."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    state = tmp_path / "state"
    state.write_bytes(content)

    with pytest.raises(SourceError, match=r"'.*' is not a state file of this program .*; remove it to replay from"):
        await played(replay(path=str(path), state_file=str(state)))
    assert state.read_bytes() == content


async def test_state_file_that_cannot_be_written_is_reported_before_the_first_round(tmp_path: Path) -> None:
    """The replay does not run for hours without storing its offset."""
    path = write(tmp_path / "a.jsonl", rounds(3))

    with pytest.raises(SourceError, match=r"state file '.*' cannot be written: No such file or directory"):
        await played(replay(path=str(path), state_file=str(tmp_path / "nowhere" / "state")))
    with pytest.raises(SourceError, match=r"state file '.*' cannot be read: Is a directory"):
        await played(replay(path=str(path), state_file=str(tmp_path)))


@given(line=st.integers(0, 2**63 - 1), number=st.integers(0, 2**63 - 1), shift=st.integers(0, 2**63 - 1))
@settings(max_examples=20)
async def test_state_with_any_numbers_is_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory, line: int, number: int, shift: int
) -> None:
    """A file edited by hand gives rounds or one sentence."""
    folder = tmp_path_factory.mktemp("any-state")
    path = write(folder / "a.jsonl", rounds(3))
    state = folder / "state"
    options = {"path": str(path), "state_file": str(state), "loop": True}
    await played(replay(**options), stop_after=1)
    content = msgspec.json.decode(state.read_bytes())
    state.write_bytes(msgspec.json.encode(content | {"line": line, "played": number, "shift_ms": shift}))

    with suppress(SourceError):
        assert len(await played(replay(**options), stop_after=5)) == 5
