"""Lines are the same for any chunks, and a long line takes bounded memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from backends.file.recording.lines import RAW_BYTES, LineCutter, TooLong


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 30)))
def test_chunks_of_any_size_give_the_lines_of_the_whole(lines: list[bytes], sizes: list[int]) -> None:
    """The result is that of split(), for any chunk boundaries."""
    data = b"\n".join(lines)
    cutter = LineCutter(1024)

    found: list[bytes | TooLong] = []
    rest = data
    for size in sizes:
        found += cutter.feed(rest[:size])
        rest = rest[size:]
    found += cutter.feed(rest)
    found += cutter.finish()

    expected = data.split(b"\n")
    assert found == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 200))
def test_exactly_the_lines_over_the_limit_are_too_long(lengths: list[int], chunk: int) -> None:
    """The limit holds inside a chunk, across chunks and at the end; a line of exactly the limit passes."""
    data = b"".join(b"x" * length + b"\n" for length in lengths)
    cutter = LineCutter(30)

    found = [line for at in range(0, len(data), chunk) for line in cutter.feed(data[at : at + chunk])]

    assert [line.size if isinstance(line, TooLong) else len(line) for line in found] == lengths
    assert [isinstance(line, TooLong) for line in found] == [length > 30 for length in lengths]


def test_line_of_100_mb_is_skipped_in_bounded_memory() -> None:
    """Only its beginning is kept, and the next line is complete."""
    cutter = LineCutter(1 << 20)
    chunk = b"x" * (1 << 17)
    tracemalloc.start()
    try:
        for _ in range(800):
            assert cutter.feed(chunk) == []
        lines = cutter.feed(b"\nnext\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert lines == [TooLong(b"x" * RAW_BYTES, 800 << 17), b"next"]
    assert peak < 4 << 20


def test_unfinished_line_is_known_to_be_too_long_before_it_ends() -> None:
    """An endless line can be refused before its end arrives."""
    cutter = LineCutter(10)

    cutter.feed(b"short\n0123456789")
    assert cutter.overflow is None
    cutter.feed(b"0")
    assert cutter.overflow == TooLong(b"01234567890", 11)
