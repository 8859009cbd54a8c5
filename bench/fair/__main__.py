"""``python -m bench.fair [--rounds N] [--repeats N] [CROWD ...]``: what one key's crowd changes for another key.

One client of a key reads the past: it resumes from a cursor far back, asks for pages of history, and for rounds that
are in memory. Each is measured without a crowd and beside each crowd of another key. All positions are random, so that
no two readers share pages. The relay has one core; clients and nats-server share the other, where the crowd has a lower
priority. The exit status is 1 when a ratio is over the target.
"""

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from auth.key_secret import generate
from bench._nats import NatsServer
from bench._process import allow_files, on_core
from bench._relay import relay
from bench._report import heading, percentile, table
from bench.fair.crowd import CROWDS, KEY
from bench.fair.lone_reader import MEASURES, LoneReader
from bench.hostile.sockets import Target
from bench.replay.filled_log import FilledLog

_RELAY_CORE: Final = 0
_OTHER_CORE: Final = 1
_ROUNDS: Final = 200_000
_REPEATS: Final = 40
_TARGET: Final = 2.0
_NATS_THREADS: Final = 4
_FILES: Final = 4000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fair", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CROWD", help=f"crowds: {', '.join(CROWDS)}; default: all")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="rounds in the log")
    parser.add_argument("--repeats", type=int, default=_REPEATS, help="how often each is measured")
    given = parser.parse_args()
    if unknown := set(given.names) - set(CROWDS):
        parser.error(f"unknown crowd {min(unknown)!r}; there are: {', '.join(CROWDS)}")
    allow_files(_FILES)
    command = f"python -m bench.fair --rounds {given.rounds} --repeats {given.repeats}"
    heading("One key's reader beside another key's crowd", command)
    worst = 0.0
    with on_core(_OTHER_CORE), NatsServer(threads=_NATS_THREADS) as nats:
        log = FilledLog(nats)
        log.fill(given.rounds)
        rows = []
        for name in given.names or CROWDS:
            rows += _beside(name, nats, log, given.repeats)
            print("\n".join(" | ".join(row) for row in rows[-len(MEASURES) :]), file=sys.stderr, flush=True)
    worst = max(float(row[-1].strip("*")) for row in rows)
    table(["crowd of another key", "one client", "p50 alone", "p99 alone", "p50", "p99", "ratio of p50"], rows)
    print(f"target: ratio ≤ {_TARGET:g}; the worst is {worst:.1f}")
    return 0 if worst <= _TARGET else 1


def _beside(name: str, nats: NatsServer, log: FilledLog, repeats: int) -> list[list[str]]:
    key, stored = generate("private")
    with on_core(_RELAY_CORE), relay(nats.url, more_keys=f"crowd={stored}") as process, on_core(_OTHER_CORE):
        reader = LoneReader(Target(process.port, 0, process.key), log)
        reader.measure(3)  # everything is loaded
        alone = reader.measure(repeats)
        with _crowd(name, process.port, key, log):
            beside = reader.measure(repeats)
    return [_row(name, what, alone, beside) for what in MEASURES]


def _row(
    name: str, what: str, alone: Mapping[str, Sequence[float]], beside: Mapping[str, Sequence[float]]
) -> list[str]:
    figures = [percentile(times[what], share) for times in (alone, beside) for share in (0.5, 0.99)]
    ratio = figures[2] / figures[0]
    return [CROWDS[name][0], MEASURES[what], *(f"{1000 * figure:.1f} ms" for figure in figures), f"**{ratio:.1f}**"]


@contextmanager
def _crowd(name: str, port: int, key: str, log: FilledLog) -> Iterator[None]:
    """Run the crowd while the block runs."""
    command = [sys.executable, "-m", "bench.fair.crowd", name, str(port), log.epoch, str(log.count)]
    process = subprocess.Popen(command, env=os.environ | {KEY: key}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "reading":
            raise SystemExit(f"the crowd {name} did not begin")
        yield
        if process.poll() is not None:
            raise SystemExit(f"the crowd {name} ended by itself")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    random.seed(7)
    sys.exit(main())
