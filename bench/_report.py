"""How results are printed: Markdown tables that can be pasted into docs/benchmarks.md as they are."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` with at least `share` (0 to 1) of them at or below it; any order."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1e6) * len(ordered) // 10**6) - 1))]


def heading(title: str, command: str) -> None:
    """Print what follows, the command that made it, the machine and the date."""
    print(f"\n### {title}\n\n`{command}` · {machine()} · {datetime.now(UTC):%Y-%m-%d}\n", flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one Markdown table: the first column to the left, the others to the right."""
    print(f"| {' | '.join(header)} |")
    print(f"|{'|'.join(['---', *['---:'] * (len(header) - 1)])}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def machine() -> str:
    """Name what figures depend on: cores, processor, Python."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores of {model}, Linux, Python {platform.python_version()}"
