"""Run the command as a user does: as a process, with an environment of the test."""

import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tests.clients.program import Program, clean_environment

COMMAND: Final = str(Path(sys.executable).with_name("stream-relay"))
_DEADLINE_S: Final = 30.0


class Outcome(NamedTuple):
    """The status and output of a command that has ended."""

    code: int
    out: str
    err: str


def run(*arguments: str, **environment: str) -> Outcome:
    """Run a command to its end."""
    done = subprocess.run(
        [COMMAND, *arguments],
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def started(*arguments: str, **environment: str) -> Program:
    """Start a command that runs until it is stopped."""
    return Program([COMMAND, *arguments], env=environment)


def assert_one_line(outcome: Outcome, *parts: str) -> None:
    """Assert that a command failed with exactly one line, on stderr, that contains all of `parts`.

    A warning of ``--key`` may come before it.
    """
    assert outcome.code == 1, outcome
    assert outcome.out == ""
    [line] = [line for line in outcome.err.splitlines() if "warning: --key" not in line]
    assert line.startswith("stream-relay: ")
    for part in parts:
        assert part in line
