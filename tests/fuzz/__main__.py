"""Look for inputs that break a parser: ``python -m tests.fuzz [TARGET ...] [--seconds 20]``, or ``make fuzz``.

Each target runs in a process of its own, from its corpus and what earlier runs found (.cache/fuzz). An input that
breaks it is written to .cache/fuzz, and printed as a line for tests/fuzz/corpus/TARGET.txt.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

_CACHE: Final = Path(__file__).parents[2] / ".cache" / "fuzz"


def main() -> int:
    """Fuzz the named targets, by default all; return the exit status."""
    arguments = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    arguments.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all when none is given")
    arguments.add_argument("--seconds", type=int, default=20, help="for each target; 20 by default")
    given = arguments.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        arguments.error(f"unknown target {min(unknown)!r}; there are: {', '.join(TARGETS)}")
    broken = [name for name in given.targets or TARGETS if not _run(name, given.seconds)]
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _run(name: str, seconds: int) -> bool:
    """Fuzz one target in a child process; print what broke it. Return whether nothing did."""
    crashes = _CACHE / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(seconds), str(_CACHE)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    last = [line for line in done.stderr.splitlines() if line.startswith(("#", "Done"))][-1:]
    print("  ", *last, flush=True)
    if done.returncode == 0:
        return True
    print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
    for path in set(crashes.iterdir()) - before:
        print(f"for tests/fuzz/corpus/{name}.txt:\n{path.read_bytes()!r}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
