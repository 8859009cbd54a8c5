"""``python -m tests.rpc.flooding PORT GRPC_PORT``: the floods of the benchmark, all at once, until it is killed.

The key is in the environment. Prints ``flooding`` when each has begun. It has a lower priority than a relay, and not
the lowest: a busy machine would not run it at all.
"""

import os
import sys
import threading
from collections.abc import Iterator

from bench._process import allow_files
from bench.hostile.attacker import ATTACKS, KEY
from bench.hostile.sockets import Target


def main(port: int, grpc_port: int) -> None:
    os.nice(5)
    allow_files(4096)
    target = Target(port, grpc_port, os.environ[KEY])
    floods = [start(target) for name, (_, start) in ATTACKS.items() if name.startswith("h2-")]
    begun = threading.Barrier(len(floods) + 1)
    for flood in floods:
        threading.Thread(target=run, args=(flood, begun), daemon=True).start()
    begun.wait()
    print("flooding", flush=True)  # noqa: T201 - for the test
    threading.Event().wait()


def run(flood: Iterator[int], begun: threading.Barrier) -> None:
    next(flood)
    begun.wait()
    for _ in flood:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
