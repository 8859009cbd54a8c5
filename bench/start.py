"""``python -m bench.start``: from starting ``stream-relay serve`` to its first 200 of ``/readyz``, NATS running.

What a serverless platform waits for when it adds an instance. Above the target, the most expensive imports are printed.
"""

import re
import statistics
import subprocess
import sys
from typing import Final

from bench._nats import NatsServer
from bench._relay import relay
from bench._report import heading, table

_RUNS: Final = 10
_TARGET_S: Final = 0.8
_SHOWN: Final = 12
_IMPORT_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)")


def main() -> None:
    heading(f"Start: to the first 200 of /readyz, {_RUNS} runs", "python -m bench.start")
    seconds = []
    with NatsServer() as nats:
        with relay(nats.url):
            pass  # creates the stream, and loads the files into the page cache
        for _ in range(_RUNS):
            with relay(nats.url) as process:
                seconds.append(process.ready_s)
    median = statistics.median(seconds)
    table(
        ["", "median", "min", "max", "target"],
        [["stream-relay serve", f"**{median:.2f} s**", f"{min(seconds):.2f} s", f"{max(seconds):.2f} s", "< 0.8 s"]],
    )
    if median >= _TARGET_S:
        table(["own time of the most expensive imports", "ms"], expensive_imports("relay.serve"))


def expensive_imports(module: str) -> list[list[str]]:
    """Import a module in a fresh Python and return the modules with the most time of their own, in milliseconds."""
    printed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], capture_output=True, text=True, check=True
    ).stderr
    costs = [(int(match[1]), match[3]) for match in _IMPORT_LINE.finditer(printed)]
    return [[name, f"{cost_us / 1000:.1f}"] for cost_us, name in sorted(costs, reverse=True)[:_SHOWN]]


if __name__ == "__main__":
    main()
