"""Rules for all tests: one profile of hypothesis, no waits on time, programs that start as in a terminal."""

import ast
import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.signals import keep_ignored_signals_from_children
from tests.waiting import until

TESTS = Path(__file__).parent
PROFILE = {"deadline", "suppress_health_check", "derandomize", "database", "print_blob"}
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a function, by any import, in all tests: the place of each, and the call."""
    for path in sorted(TESTS.rglob("*.py")):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if f"{name}(" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
                yield f"{path.relative_to(TESTS)}:{node.lineno}", node


def test_no_property_test_fails_for_slowness() -> None:
    """Neither of our profiles measures time, and one of them is in force."""
    for profile in (settings.get_profile("suite"), settings.get_profile("search"), settings()):
        assert profile.deadline is None
        assert HealthCheck.too_slow in profile.suppress_health_check


def test_only_the_profile_decides_what_is_the_same_for_all_property_tests() -> None:
    own = {place: {keyword.arg for keyword in call.keywords} for place, call in calls("settings")}

    assert len(own) > 3, "none found"
    assert {place: names for place, names in own.items() if names & PROFILE} == {}


def test_no_test_sleeps_to_synchronise() -> None:
    """A duration that is part of the situation is a named constant with a reason; all other waits are on events."""
    sleeps = {place: ast.unparse(call.args[0]) for place, call in calls("sleep")}

    assert len(sleeps) > 3, "none found"
    assert {place: length for place, length in sleeps.items() if length[0].isdigit() and length != "0"} == {}


def test_streams_are_opened_where_they_are_closed() -> None:
    """`tests.network.streams` closes what it opens and accepts; streams of asyncio opened elsewhere may stay open."""
    opened = {
        place
        for name in ("open_connection", "start_server")
        for place, call in calls(name)
        if ast.unparse(call.func) == f"asyncio.{name}"
    }

    assert {place.partition(":")[0] for place in opened} == {"network/streams.py", "network/test_streams.py"}


_LEAKS = """
import asyncio, socket, pytest

other_sides = []

@pytest.mark.service
async def test_leaves_a_connection_open():
    side, other_side = socket.socketpair()
    other_sides.append(other_side)
    _, writer = await asyncio.open_connection(sock=side)
    writer.cycle = writer  # only the garbage collector finds it

@pytest.mark.service
async def test_leaves_nothing():
    pass
"""


@pytest.mark.service
def test_connection_that_is_left_open_fails_its_own_test(tmp_path: Path) -> None:
    """Not the one in which the garbage collector runs next."""
    (tmp_path / "test_leaks.py").write_text(_LEAKS)
    arguments = [
        "-p",
        "tests.leaks",
        "-p",
        "no:cacheprovider",
        "-c",
        str(TESTS.parent / "pyproject.toml"),
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=TESTS.parent, capture_output=True, text=True, check=False
    )

    assert "ERROR at teardown of test_leaves_a_connection_open" in done.stdout, done.stdout
    assert "2 passed, 1 error" in done.stdout


_STARTS_A_PROGRAM = """
import signal, subprocess
from tests.signals import keep_ignored_signals_from_children
keep_ignored_signals_from_children()
subprocess.run(["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"], check=True)
"""


@pytest.mark.service
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process ignores")
def test_programs_start_as_in_a_terminal_when_the_tests_run_in_the_background() -> None:
    """Signals that were ignored or blocked at our start are not for the programs that we start."""
    ignoring = f"""
import os, signal, sys
for number in {[int(number) for number in IGNORED]}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
    done = subprocess.run(
        [sys.executable, "-c", ignoring, _STARTS_A_PROGRAM],
        cwd=TESTS.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip

    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    ours = sum(1 << (number - 1) for number in (*IGNORED, signal.SIGUSR1))  # the C library reserves some others
    assert (blocked & ours, ignored & ours) == (0, 0)


def test_signal_that_was_ignored_still_does_nothing_to_the_tests() -> None:
    """A run under nohup continues after its terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        keep_ignored_signals_from_children()
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_until_returns_the_first_true_answer() -> None:
    """For a function and for a coroutine function."""
    answers = iter([0, "", "yes", "later"])

    async def ask() -> object:
        await asyncio.sleep(0)
        return next(answers)

    assert await until(ask) == "yes"
    assert await until(lambda: next(answers)) == "later"


async def test_until_shows_the_last_answer_when_it_gives_up() -> None:
    with pytest.raises(TimeoutError, match=r"not within 0\.05 s; the last answer was 0"):
        await until(lambda: 0, within_s=0.05)
