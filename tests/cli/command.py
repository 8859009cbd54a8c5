"""The command as a user runs it: a process with an environment of the test's own."""

import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tests.clients.program import Program, clean_environment

COMMAND: Final = str(Path(sys.executable).with_name("stream-relay"))
_DEADLINE_S: Final = 30.0


class Outcome(NamedTuple):
    """How a command ended and what it said."""

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
    """A failed command says one line on stderr, with all of `parts` in it, and nothing else."""
    assert outcome.code == 1, outcome
    assert outcome.out == ""
    [line] = outcome.err.splitlines()
    assert line.startswith("stream-relay: ")
    for part in parts:
        assert part in line
