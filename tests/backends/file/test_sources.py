"""Recordings of every format are found and read; a recording that cannot be read gives one clear sentence."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from backends.contract import SourceError
from tests.backends.file.replaying import jsonl, names_in, played, played_to_error, replay, rounds, rounds_of, write
from tests.backends.file.test_formats import HEADER, csv_line

DATA = jsonl(rounds(2000))


def zstd_of_unknown_size(data: bytes) -> bytes:
    """Compress as ``zstd < file`` does: the frame has a checksum and no content size."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False) as writer:
        writer.write(data)
    return out.getvalue()


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd_of_unknown_size,
}


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
async def test_every_format_gives_the_same_rounds(tmp_path: Path, kind: str, ending: str) -> None:
    """JSONL and CSV, plain and compressed, give equal rounds."""
    data = DATA if kind == "jsonl" else b"\n".join([HEADER, *map(csv_line, rounds(2000))])
    path = tmp_path / f"a.{kind}{ending}"
    path.write_bytes(COMPRESSORS.get(ending, bytes)(data))

    assert rounds_of(await played(replay(path=str(path)))) == rounds(2000)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
async def test_compressed_files_that_were_joined_are_read_to_the_end(tmp_path: Path, ending: str) -> None:
    """``cat a.zst b.zst`` is a zstd file, and gzip allows the same."""
    path = tmp_path / f"a.jsonl{ending}"
    compress = COMPRESSORS[ending]
    path.write_bytes(compress(jsonl(rounds(3))) + compress(jsonl(rounds(3, first=3))))

    assert rounds_of(await played(replay(path=str(path)))) == rounds(6)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("missing", [1, 2, 3, 4, 8, 100, 1000])
async def test_truncated_compressed_file_is_reported_after_its_readable_rounds(
    tmp_path: Path, ending: str, missing: int
) -> None:
    """The rounds before the end of the data are played, and no others."""
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(COMPRESSORS[ending](DATA)[:-missing])

    found, error = await played_to_error(replay(path=str(path)))

    assert str(error) == f"a.jsonl{ending} is truncated: its compressed data has no end"
    assert rounds_of(found) == rounds(len(found))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("corrupt", [b"this is no compressed data", b"\x00" * 50])
async def test_file_that_is_not_compressed_as_its_name_says_is_reported(
    tmp_path: Path, ending: str, corrupt: bytes
) -> None:
    """The usual cause is a wrong ending."""
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(corrupt)

    with pytest.raises(SourceError, match=rf"a\.jsonl{ending} cannot be decompressed: ."):
        await played(replay(path=str(path)))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
async def test_flipped_bit_in_compressed_data_is_an_error(tmp_path: Path, ending: str) -> None:
    """The checksum detects it when nothing else does."""
    data = bytearray(COMPRESSORS[ending](DATA))
    data[len(data) // 2] ^= 0x10
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(data)

    with pytest.raises(SourceError, match=rf"a\.jsonl{ending}"):
        await played(replay(path=str(path), rejects_file=str(tmp_path / "rejects")))


async def test_bomb_of_compressed_zeros_is_one_line_too_long(tmp_path: Path) -> None:
    """256 MiB from 8 KiB are decompressed in pieces and refused as one long line."""
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(256 << 20)))

    with pytest.raises(SourceError, match=r"a\.jsonl\.zst:1 is not a round: the line is longer than 1048576 bytes"):
        await played(replay(path=str(path)))


async def test_folder_is_played_in_the_order_of_names(tmp_path: Path) -> None:
    """Formats may differ; other files, hidden files and folders are ignored."""
    write(tmp_path / "2026-01-19.jsonl", rounds(2, first=2))
    (tmp_path / "2026-01-18.csv").write_bytes(b"\n".join([HEADER, *map(csv_line, rounds(2))]))
    (tmp_path / "2026-01-20.jsonl.gz").write_bytes(gzip.compress(jsonl(rounds(2, first=4))))
    (tmp_path / "README.md").write_text("not a round")
    (tmp_path / ".hidden.jsonl").write_text("not a round")
    (tmp_path / "archive.jsonl").mkdir()

    items = await played(replay(path=str(tmp_path)))

    assert rounds_of(items) == rounds(6)
    assert [item.offset.line for item in items] == [2, 3, 1, 2, 1, 2]


async def test_option_format_reads_a_file_whose_name_shows_no_format(tmp_path: Path) -> None:
    """A dump is often named ``rounds.txt``."""
    path = write(tmp_path / "rounds.txt", rounds(2))

    assert rounds_of(await played(replay(path=str(path), format="jsonl"))) == rounds(2)
    with pytest.raises(SourceError, match=r"rounds.txt' does not show its format; set the option format to one of "):
        await played(replay(path=str(path)))


async def test_path_that_cannot_be_opened_is_reported_in_one_sentence(tmp_path: Path) -> None:
    """The path is missing, a folder without recordings, or not a file."""
    fifo = tmp_path / "pipe.jsonl"
    os.mkfifo(fifo)
    empty = tmp_path / "empty"
    empty.mkdir()
    sentences = {
        tmp_path / "missing.jsonl": r"recording '.*missing.jsonl' does not exist",
        fifo: "is neither a file nor a folder; use '-' to read a stream",
        empty: "folder '.*empty' has no recordings; their names end in one of jsonl, csv, jsonl.gz",
        Path("a\0b.jsonl"): "does not exist|cannot be read",
        tmp_path / ("x" * 300 + ".jsonl"): "cannot be read: File name too long",
    }
    for path, sentence in sentences.items():
        with pytest.raises(SourceError, match=sentence) as raised:
            await played(replay(path=str(path)))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
async def test_recording_without_rounds_is_reported(tmp_path: Path, name: str, content: bytes) -> None:
    """An empty file is most likely a mistake."""
    path = tmp_path / name
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(content))
    wanted = "the header" if name == "a.csv" and content == b"\xef\xbb\xbf" else "recording '.*' has no rounds"

    with pytest.raises(SourceError, match=wanted):
        await played(replay(path=str(path)))


async def test_files_are_closed_when_a_replay_is_left_at_any_round(tmp_path: Path) -> None:
    """An unclosed file would raise a warning, and warnings are errors here; no descriptor stays open."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(rounds(5000))))
    before = names_in(Path("/proc/self/fd"))
    for stop in (1, 4999):
        await played(replay(path=str(path), rejects_file=str(tmp_path / "rejects")), stop_after=stop)

    assert names_in(Path("/proc/self/fd")) == before
