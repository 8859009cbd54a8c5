"""``python -m bench.start [CHECKOUT]``: from starting ``stream-relay serve`` to the first 200 of ``/readyz``.

What a serverless platform waits for when it adds an instance. With a checkout of another commit (``git worktree add``),
both are started in turns. Above the target, the most expensive imports are printed.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench._nats import NatsServer
from bench._relay import relay
from bench._report import heading, table

_RUNS: Final = 10
_TARGET_S: Final = 0.8
_SHOWN: Final = 12
_IMPORT_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)")
_HERE: Final = str(Path(__file__).parents[1])


def main(others: list[str]) -> None:
    sources = {"stream-relay serve": _HERE} | {f"that of {other}": str(Path(other).resolve()) for other in others}
    heading(f"Start: to the first 200 of /readyz, {_RUNS} runs", f"python -m bench.start {' '.join(others)}".rstrip())
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    cpu: dict[str, list[float]] = {name: [] for name in sources}
    with NatsServer() as nats, tempfile.TemporaryDirectory() as cache:
        # An image has compiled code, whatever is set here.
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(_RUNS + 1):
            for name, source in sources.items():
                with relay(nats.url, source=source) as process:
                    if turn:  # the first creates the stream, and the compiled code
                        seconds[name].append(process.ready_s)
                        cpu[name].append(process.ready_cpu_s)
    medians = {name: statistics.median(cpu[name]) for name in sources}
    ours = medians["stream-relay serve"]
    table(
        ["", "median", "min", "max", "target", "CPU, median", "ratio of CPU"],
        [
            [
                name,
                f"**{statistics.median(took):.2f} s**",
                f"{min(took):.2f} s",
                f"{max(took):.2f} s",
                "< 0.8 s",
                f"{medians[name]:.2f} s",
                f"{ours / medians[name]:.2f}",
            ]
            for name, took in seconds.items()
        ],
    )
    if statistics.median(seconds["stream-relay serve"]) >= _TARGET_S:
        table(["own time of the most expensive imports", "ms"], expensive_imports("relay.serve"))


def expensive_imports(module: str) -> list[list[str]]:
    """Import a module in a fresh Python and return the modules with the most time of their own, in milliseconds."""
    printed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], capture_output=True, text=True, check=True
    ).stderr
    costs = [(int(match[1]), match[3]) for match in _IMPORT_LINE.finditer(printed)]
    return [[name, f"{cost_us / 1000:.1f}"] for cost_us, name in sorted(costs, reverse=True)[:_SHOWN]]


if __name__ == "__main__":
    main(sys.argv[1:])
