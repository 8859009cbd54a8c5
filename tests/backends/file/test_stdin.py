"""Standard input is played as it arrives, once, and never delays the exit."""

import asyncio
import gzip
import os
from collections.abc import Iterator

import pytest

from backends.contract import SourceError
from tests.backends.file.replaying import jsonl, played, replay, rounds, rounds_of
from tests.backends.file.test_formats import HEADER, csv_line


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give this process a pipe as standard input; yield its writing end."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0):
        monkeypatch.setattr("sys.stdin", stdin)
        yield writing


def end(feed: int) -> None:
    """Close the pipe; keep its descriptor number in use, so that the fixture closes no other file."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, feed)
    os.close(null)


@pytest.mark.parametrize("format_", ["jsonl", "csv", "jsonl.gz"])
async def test_option_format_gives_the_format_of_standard_input(feed: int, format_: str) -> None:
    """Standard input has no name that shows its format."""
    data = {
        "jsonl": jsonl(rounds(20)),
        "csv": b"\n".join([HEADER, *map(csv_line, rounds(20))]),
        "jsonl.gz": gzip.compress(jsonl(rounds(20))),
    }
    os.write(feed, data[format_])
    end(feed)

    assert rounds_of(await played(replay(path="-", format=format_))) == rounds(20)


async def test_round_is_played_when_its_line_ends_not_when_the_input_ends(feed: int) -> None:
    """A pipe may stay open for days."""
    backend = replay(path="-")
    async with backend.open():
        reading = backend.read()
        for round_ in rounds(3):
            os.write(feed, jsonl([round_]))
            assert rounds_of(await anext(reading)) == [round_]
        await reading.aclose()


async def test_stop_while_waiting_for_input_is_immediate(feed: int) -> None:
    """The thread that waits for input is woken; otherwise the process could not exit."""
    backend = replay(path="-")
    async with asyncio.timeout(5):
        async with backend.open():
            waiting = asyncio.ensure_future(anext(backend.read()))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


async def test_malformed_line_is_reported_with_its_number(feed: int) -> None:
    """The sentence says "standard input" instead of a file name."""
    os.write(feed, jsonl(rounds(1)) + b"broken\n")

    with pytest.raises(SourceError, match=r"^standard input:2 is not a round: "):
        await played(replay(path="-"))


async def test_too_long_line_is_refused_before_its_end(feed: int) -> None:
    """The pipe is open, and a line end may never arrive."""
    os.write(feed, b"x" * 5000)

    with pytest.raises(SourceError, match=r"^standard input:1 is not a round: the line is longer than 1024 bytes"):
        await played(replay(path="-", max_line_bytes=1024))


async def test_empty_standard_input_is_reported(feed: int) -> None:
    """Empty input is most likely a mistake."""
    end(feed)

    with pytest.raises(SourceError, match=r"^standard input has no rounds$"):
        await played(replay(path="-"))


async def test_standard_input_is_read_only_once(feed: int) -> None:
    """Rounds that were not confirmed cannot be read again, so a second read is an error."""
    os.write(feed, jsonl(rounds(2)))
    end(feed)
    backend = replay(path="-")
    await played(backend)

    with pytest.raises(SourceError, match="standard input can be read only once"):
        await played(backend)
