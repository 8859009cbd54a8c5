"""Output that is not read: nothing waits for it, and what is lost is counted."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relay.config.log_output import LineWriter

LINE = "x" * 99 + "\n"
QUEUE_BYTES = 8192
PIPE_BYTES = 65536
COUNT = 10_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):
            os.close(end)


def numbered(number: int) -> str:
    return f"{number:09} {'x' * 89}\n"


def test_unread_pipe_does_not_block_and_what_is_dropped_is_counted(pipe: tuple[int, int]) -> None:
    """Kept lines are whole and in order; where lines are missing, a line has their number."""
    reader, end = pipe
    writer = LineWriter(end, queue_bytes=QUEUE_BYTES)
    for number in range(COUNT):
        writer.write(numbered(number))

    assert writer.dropped > COUNT - (PIPE_BYTES + 2 * QUEUE_BYTES) // len(LINE)
    expected = 0
    with open(reader, encoding="utf-8", closefd=False) as lines:
        while expected < COUNT:
            line = lines.readline()
            if found := re.search(r"(\d+) lines of output were dropped", line):
                expected += int(found[1])
            else:
                assert line == numbered(expected)
                expected += 1
        writer.write("later\n")
        assert lines.readline() == "later\n"
    assert writer.flush()


def test_lines_of_several_threads_stay_whole(pipe: tuple[int, int]) -> None:
    """Also lines longer than what a pipe takes in one piece; those of one thread stay in order."""
    reader, end = pipe
    writer = LineWriter(end)
    long = "y" * 10_000

    def write(name: str) -> None:
        for number in range(50):
            writer.write(f"{name} {number} {long}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    with open(reader, encoding="utf-8", closefd=False) as lines:
        for _ in range(150 - writer.dropped):
            name, number, rest = lines.readline().split()
            seen[name].append(int(number))
            assert rest == long
    for thread in threads:
        thread.join()

    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert writer.flush()


def test_reader_that_is_gone_ends_nothing(pipe: tuple[int, int]) -> None:
    """Lines are lost, no signal and no error comes, and the flush at the end does not wait."""
    reader, end = pipe
    os.close(reader)
    writer = LineWriter(end, again_s=0.01)
    writer.write(LINE)

    assert not writer.flush()


def test_full_disk_ends_nothing() -> None:
    """As for a reader that is gone: what could not be written is tried again, and dropped when the queue is full."""
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(full, queue_bytes=QUEUE_BYTES, again_s=0.01)
    for _ in range(1000):
        writer.write(LINE)

    assert writer.dropped
    assert not writer.flush()


def test_lines_wait_for_a_reader_that_comes_back(tmp_path: Path) -> None:
    """A named pipe gets a new reader, as a log collector that was restarted: the lines since then are there."""
    path = tmp_path / "log"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(os.open(path, os.O_WRONLY), again_s=0.01)
    os.close(first)
    writer.write("while it was away\n")

    with path.open() as lines:
        assert lines.readline() == "while it was away\n"
        assert writer.flush()


def test_file_in_non_blocking_mode_loses_nothing(pipe: tuple[int, int]) -> None:
    """Another process that shares the file, such as node on the same terminal, may have set it."""
    reader, end = pipe
    os.set_blocking(end, False)
    writer = LineWriter(end)
    for number in range(3000):
        writer.write(numbered(number))

    with open(reader, encoding="utf-8", closefd=False) as lines:
        assert [int(lines.readline()[:9]) for _ in range(3000)] == list(range(3000))
    assert writer.flush()


def test_flush_gives_a_stalled_reader_up(pipe: tuple[int, int]) -> None:
    """A process that ends waits only while its output is read."""
    _, end = pipe
    writer = LineWriter(end)
    for _ in range(2000):
        writer.write(LINE)

    assert not writer.flush(stalled_s=0.05)


# --- in a process ---------------------------------------------------------------------------------------------------

BEGIN = (
    "import sys, warnings, threading; from relay.config.logs import configure, write_without_blocking;"
    "configure(log_format='json', level='info'); write_without_blocking();"
    "import structlog; log = structlog.get_logger();"
)


def python(code: str, *, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BEGIN + code], stderr=stderr, text=True, timeout=30, check=False)


@pytest.mark.service
def test_everything_printed_appears_in_order_before_the_end() -> None:
    """Events, prints in pieces, warnings, and the traceback of the error that ends the process."""
    done = python(
        "log.info('first'); print('sec', 'ond', file=sys.stderr); warnings.warn('third');"
        "print('fourth', end='', file=sys.stderr); 1 / 0"
    )

    places = [done.stderr.index(text) for text in ("first", "sec ond\n", "third", "fourth", "ZeroDivisionError")]
    assert places == sorted(places)
    assert done.returncode == 1


@pytest.mark.service
def test_process_with_an_unread_pipe_ends_with_its_own_code() -> None:
    """Three megabytes of log lines into a pipe that nobody reads."""
    reader, end = os.pipe()
    try:
        done = python("[log.info('line', text='x' * 300) for _ in range(10000)]; sys.exit(7)", stderr=end)
    finally:
        os.close(reader)
        os.close(end)

    assert done.returncode == 7


@pytest.mark.service
@pytest.mark.parametrize("file", ["/dev/full", "closed pipe"])
def test_process_that_cannot_print_ends_with_its_own_code(file: str) -> None:
    """Nothing that is printed ends a process."""
    if file == "closed pipe":
        reader, end = os.pipe()
        os.close(reader)
    else:
        end = os.open(file, os.O_WRONLY)
    try:
        done = python("log.info('line'); print('more', file=sys.stderr); sys.exit(7)", stderr=end)
    finally:
        os.close(end)

    assert done.returncode == 7


@pytest.mark.service
def test_process_without_stderr_runs() -> None:
    """A service manager may start it with the file closed; its number then belongs to a connection."""
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", BEGIN + "log.info('line'); sys.exit(7)"]

    assert subprocess.run(command, timeout=30, check=False).returncode == 7
