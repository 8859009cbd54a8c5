"""``python -m bench [NAME ...]``: run the named benchmarks, or all, one after another."""

import subprocess
import sys
from typing import Final

NAMES: Final = (
    "start",
    "ingest",
    "replicated",
    "capture",
    "writers",
    "end_to_end",
    "fanout",
    "compression",
    "replay",
    "log_length",
    "grpc",
    "live_path",
    "watched",
    "filters",
    "hostile",
    "fair",
    "auth",
)


def main(wanted: list[str]) -> int:
    """Run each in a process of its own, so that none inherits another's memory; return the worst exit status."""
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    return max(
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode for name in wanted or NAMES
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
