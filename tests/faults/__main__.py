"""``python -m tests.faults``: run a campaign; the exit status is 1 when there are findings.

``--seed N`` is the seed of the first schedule, those of the others follow it; without it one is drawn, and printed.
``--schedules`` and ``--minutes`` say how long. ``--tour`` runs every fault once. ``--only NAME`` runs single faults;
``--list`` names them.
"""

import argparse
import asyncio
import contextlib
import itertools
import logging
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tests.faults.campaign import Result, run_schedule
from tests.faults.kinds.table import FAULTS, names_for
from tests.faults.plan import Schedule, only, plan, tour
from tests.signals import keep_ignored_signals_from_children


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--schedules", type=int, default=None, help="how many; default: as many as fit into --minutes")
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no schedule after so many")
    parser.add_argument("--tour", action="store_true", help="every fault once, in three schedules")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="these faults, one after another")
    parser.add_argument("--list", action="store_true", help="name all faults, and end")
    parser.add_argument("--verbose", action="store_true", help="print what happens when")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name:20} {fault.kind}" for name, fault in sorted(FAULTS.items())))
        return 0
    keep_ignored_signals_from_children()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # our own tasks and asyncpg's are cut off on purpose
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    return campaign(seed, given)


def campaign(seed: int, given: argparse.Namespace) -> int:
    """Run schedule after schedule; print each, and a summary that can be pasted into docs/reliability.md."""
    print(f"the first seed is {seed}", flush=True)
    deadline = time.monotonic() + 60 * given.minutes
    results: list[Result] = []
    for schedule in _schedules(seed, given):
        if time.monotonic() > deadline and given.schedules is None and not given.tour:
            break
        print(f"{schedule.seed}: {schedule.shown}", flush=True)
        result = asyncio.run(run_schedule(schedule, shows=given.verbose))
        results.append(result)
        _print_result(result, _again(seed, schedule, given))
    return _summary(results)


def _schedules(seed: int, given: argparse.Namespace) -> Iterable[Schedule]:
    if given.tour:
        return tour(seed, names_for)
    numbers = itertools.count(seed) if given.schedules is None else range(seed, seed + given.schedules)
    planned = (plan(number, names_for) for number in numbers)
    return (only(schedule, given.only) for schedule in planned) if given.only else planned


def _again(seed: int, schedule: Schedule, given: argparse.Namespace) -> str:
    """Return the arguments that run a schedule again."""
    if given.tour:
        return f"--tour --seed {seed}"
    return f"--seed {schedule.seed} --schedules 1" + "".join(f" --only {name}" for name in given.only or [])


def _print_result(result: Result, again: str) -> None:
    print(f"  {result.rounds} rounds, {result.deliveries} deliveries, {result.seconds:.0f} s", flush=True)
    for finding in result.findings:
        print(f"  FOUND {finding}"[:600], flush=True)
    if result.findings:
        print(f"  again: python -m tests.faults --verbose {again}", flush=True)
        print(f"  logs: {result.folder}", flush=True)
    else:
        with contextlib.suppress(OSError):
            shutil.rmtree(result.folder)


def _summary(results: list[Result]) -> int:
    faults: Counter[str] = sum((result.faults for result in results), Counter())
    ends: Counter[str] = sum((result.ends for result in results), Counter())
    gaps: Counter[str] = sum((result.gaps for result in results), Counter())
    found: Counter[str] = Counter(finding.kind for result in results for finding in result.findings)
    left_out = Counter(name for result in results for name in result.left_out)
    print(f"\nschedules: {len(results)}, of which {sum(bool(result.findings) for result in results)} with findings")
    print(f"rounds committed: {sum(result.rounds for result in results):,}")
    print(f"deliveries checked: {sum(result.deliveries for result in results):,}")
    for title, counts in (
        ("faults", faults),
        ("ends of connections", ends),
        ("gaps", gaps),
        ("findings", found),
        ("left out", left_out),
    ):
        print(f"{title}: {', '.join(f'{count} {name}' for name, count in counts.most_common()) or 'none'}")
    print(
        f"doubles after a freeze longer than the duplicate window: {sum(result.allowed_doubles for result in results)}"
    )
    seeds = [result.schedule.seed for result in results if result.findings]
    print(f"seeds with findings: {', '.join(map(str, seeds)) or 'none'}", flush=True)
    return 1 if seeds else 0


if __name__ == "__main__":
    sys.exit(main())
