"""A line that is not a round stops the replay with file, line and reason, or goes to the rejects file."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import Captured, Rejected, SourceError
from backends.file.recording.formats import FIELDS
from rounds import Round
from tests.backends.file.replaying import (
    StoppedClock,
    ids,
    jsonl,
    played,
    played_to_error,
    replay,
    round_at,
    rounds,
    rounds_of,
    write,
)

UNKNOWN = jsonl([round_at(7)]).replace(b"crash", b"chess")


def with_bad_lines(folder: Path) -> Path:
    path = folder / "a.jsonl"
    path.write_bytes(
        jsonl(rounds(2))
        + b"\n{broken\n"
        + jsonl(rounds(1, first=2))
        + UNKNOWN
        + b"\xff\xfe\n"
        + jsonl(rounds(1, first=3))
    )
    return path


async def test_malformed_line_stops_the_replay_after_the_rounds_before_it(tmp_path: Path) -> None:
    """The sentence has file, line, reason and what to do."""
    found, error = await played_to_error(replay(path=str(with_bad_lines(tmp_path))))

    assert re.match(r"a\.jsonl:4 is not a round: .*\(correct the line, or set rejects_file", str(error))
    assert rounds_of(found) == rounds(2)


async def test_with_a_rejects_file_the_replay_continues(tmp_path: Path) -> None:
    """Each rejected line is an item, in order, and a line of the rejects file."""
    rejects = tmp_path / "rejects.log"

    items = await played(replay(path=str(with_bad_lines(tmp_path)), rejects_file=str(rejects)))

    assert ids(items) == [100, 101, 102, 103]
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert [(item.key, item.raw) for item in rejected] == [
        ("a.jsonl:4", b"{broken"),
        ("a.jsonl:6", UNKNOWN.rstrip()),
        ("a.jsonl:7", b"\xff\xfe"),
    ]
    assert rejected[1].reason.startswith("unknown game 'chess'; known games: aviador, ")
    assert rejected[2].reason == "the file is UTF-16; save it as UTF-8"
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(line["file"], line["line"], line["reason"]) for line in lines] == [
        ("a.jsonl", number, item.reason) for number, item in zip((4, 6, 7), rejected, strict=True)
    ]
    assert [line["raw"] for line in lines] == ["{broken", UNKNOWN.decode().rstrip(), "\\xff\\xfe"]


async def test_round_of_another_type_than_its_game_is_not_a_round(tmp_path: Path) -> None:
    """Clients of `/ws/type/color` would receive it and could not read its extras."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(rounds(2)) + jsonl(rounds(1, first=2)).replace(b"multiplier", b"color"))

    found, error = await played_to_error(replay(path=str(path)))

    assert rounds_of(found) == rounds(2)
    assert "a.jsonl:3 is not a round: game_type 'color' is not that of 'crash' in the catalogue, 'multiplier'" in str(
        error
    )


async def test_round_of_another_type_of_a_game_not_selected_is_skipped(tmp_path: Path) -> None:
    """A round that is not selected is not an error."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(rounds(1)).replace(b"multiplier", b"color") + jsonl(rounds(1, game="double")))

    assert rounds_of(await played(replay(path=str(path), games="double"))) == rounds(1, game="double")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("size", "limit", "is_round"),
    [
        (131_071, None, True),  # the default limit of a field in Python's csv
        (131_072, None, True),
        (131_073, None, True),
        (900_000, None, True),
        (1 << 20, None, False),
        (2_000, 1024, False),
        (3 << 20, 4 << 20, True),
    ],
)
async def test_only_the_length_of_a_line_bounds_a_field(
    tmp_path: Path, kind: str, size: int, limit: int | None, is_round: bool
) -> None:
    """In both formats a line may have up to `max_line_bytes`."""
    large = round_at(1)
    extras = json.dumps({"point": "1", "ballast": "x" * (size - 29)})
    large = Round.make(**{name: getattr(large, name) for name in FIELDS} | {"extras": extras})
    assert len(extras) == size
    text = io.StringIO()
    csv.writer(text).writerows([FIELDS, [getattr(large, name) for name in FIELDS]])
    path = tmp_path / f"a.{kind}"
    path.write_bytes(jsonl([large]) if kind == "jsonl" else text.getvalue().encode())
    options: dict[str, object] = {} if limit is None else {"max_line_bytes": limit}

    items = await played(replay(path=str(path), rejects_file=str(tmp_path / "rejects"), **options))

    if is_round:
        assert rounds_of(items) == [large]
    else:
        [rejected] = [item for item in items if isinstance(item, Rejected)]
        assert rejected.reason == f"the line is longer than {limit or 1 << 20} bytes (max_line_bytes)"


async def test_rejected_line_is_due_with_the_round_before_it(tmp_path: Path) -> None:
    """A rejected line has no time, and must not delay later rounds."""
    clock = StoppedClock()
    path = str(with_bad_lines(tmp_path))

    items = await played(replay(clock, path=path, rejects_file=str(tmp_path / "rejects"), speed=1))

    assert len(items) == 7
    assert clock.passed_s == 3


async def test_restart_does_not_reject_a_line_again_that_was_confirmed(tmp_path: Path) -> None:
    """A rejected line has an offset as a round has."""
    rejects = tmp_path / "rejects.log"
    options = {
        "path": str(with_bad_lines(tmp_path)),
        "rejects_file": str(rejects),
        "state_file": str(tmp_path / "state"),
    }

    await played(replay(**options), stop_after=3)
    items = await played(replay(**options))

    assert ids(items) == [102, 103]
    assert len(rejects.read_text().splitlines()) == 3


async def test_line_of_100_mb_is_rejected_and_the_next_one_is_read(tmp_path: Path) -> None:
    """Only the beginning of the line is kept."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(jsonl(rounds(1)))
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + jsonl(rounds(1, first=1)))

    items = await played(replay(path=str(path), rejects_file=str(tmp_path / "rejects")))

    assert ids(items) == [100, 101]
    (rejected,) = (item for item in items if isinstance(item, Rejected))
    assert (rejected.key, len(rejected.raw)) == ("a.jsonl:2", 64 << 10)
    assert rejected.reason == "the line is longer than 1048576 bytes (max_line_bytes)"
    with pytest.raises(SourceError, match=r"^a\.jsonl:2 is not a round: the line is longer than 1048576 bytes"):
        await played(replay(path=str(path)))


async def test_csv_without_a_good_header_stops_even_with_a_rejects_file(tmp_path: Path) -> None:
    """No line of such a file can be read."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,game\n1,crash\n")

    with pytest.raises(SourceError, match=r"^a\.csv: the header names no round_id, "):
        await played(replay(path=str(path), rejects_file=str(tmp_path / "rejects")))


async def test_rejects_file_that_cannot_be_used_is_reported_at_the_start(tmp_path: Path) -> None:
    """Missing folders are not created, and a recording is never overwritten."""
    path = write(tmp_path / "a.jsonl", rounds(1))

    with pytest.raises(SourceError, match=r"rejects file '.*' cannot be written: No such file"):
        await played(replay(path=str(path), rejects_file=str(tmp_path / "nowhere" / "rejects")))
    with pytest.raises(SourceError, match=r"rejects_file '.*' is one of the recordings; name another file"):
        await played(replay(path=str(tmp_path), rejects_file=str(path)))
    with pytest.raises(SourceError, match=r"state_file '.*' is one of the recordings; name another file"):
        await played(replay(path=str(tmp_path), state_file=str(path)))
    assert path.read_bytes() == jsonl(rounds(1))


async def test_only_rounds_of_the_selected_games_and_times_are_played(tmp_path: Path) -> None:
    """``from`` is inclusive and ``to`` is exclusive; both compare the commit time of a round."""
    recorded = [round_at(number, game=game) for number in range(10) for game in ("crash", "dice", "double")]
    path = write(tmp_path / "a.jsonl", recorded)

    items = await played(
        replay(path=str(path), games="crash,double", from_="2026-01-18T10:00:03Z", to="2026-01-18T07:00:05-03:00")
    )

    assert [(round_.game_slug, round_.round_id) for round_ in rounds_of(items)] == [
        ("crash", 103),
        ("double", 103),
        ("crash", 104),
        ("double", 104),
    ]


@given(
    st.lists(st.binary(max_size=60) | st.just(round_at(1).to_json()), max_size=20), st.sampled_from(["jsonl", "csv"])
)
async def test_any_file_is_played_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], kind: str
) -> None:
    """For any bytes, with and without a rejects file; with one, no line is lost."""
    folder = tmp_path_factory.mktemp("any-file")
    path = folder / f"a.{kind}"
    path.write_bytes(b"\n".join(lines))
    rejects = folder / "rejects"

    for options in ({}, {"rejects_file": str(rejects)}):
        try:
            items = await played(replay(path=str(path), **options))
        except SourceError as error:
            sentence = str(error)
            assert "\n" not in sentence
            continue
        good = sum(isinstance(item, Captured) for item in items)
        written = rejects.read_text().splitlines() if options and rejects.exists() else []
        assert good + len(written) == len(items)
        if kind == "jsonl":
            assert good >= lines.count(round_at(1).to_json())
