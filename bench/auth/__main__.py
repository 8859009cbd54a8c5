"""``python -m bench.auth``: answers per CPU-second, of the relay and of bare aiohttp, in one run.

The servers have one core, one at a time; the client and nats-server have the other. CPU is that of the server's
process, so that waiting does not count. All cases take turns, so that what disturbs the machine disturbs all of them.
The exit status is 1 when a ratio misses its target.
"""

import os
import statistics
import sys
from typing import Final

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._relay import relay
from bench._report import heading, table
from bench.auth.bare import bare_server
from bench.auth.cases import BOUNDS, CASES, Credentials
from bench.auth.requests import Requests

_SERVER_CORE: Final = 0
_CLIENT_CORE: Final = 1
_SLICES: Final = int(os.environ.get("BENCH_SLICES", "12"))
_REQUESTS: Final = 1600
"""Of a case in a slice: some 0.2 s of CPU, in steps of 10 ms."""


def main() -> int:
    with on_core(_CLIENT_CORE), NatsServer() as server:
        with on_core(_SERVER_CORE):
            process = relay(server.url, RELAY_LOG_LEVEL="error", RELAY_LIMITS_WRONG_CREDENTIALS_PER_MIN="0")
            at = process.__enter__()
            constant = Credentials(at.key, at.token())
            bare = bare_server(constant)
            floor = bare.__enter__()
        try:
            heading("Admitting and refusing: answers per CPU-second of the server's process", "python -m bench.auth")
            per_s: dict[str, list[float]] = {name: [] for name in CASES}
            for _ in range(_SLICES + 1):  # the first one warms up
                for name, case in CASES.items():
                    pid, port = (floor.pid, floor.port) if case.bare else (at.pid, at.port)
                    given = constant if case.bare else Credentials(at.key, at.token())
                    requests, before_s = Requests(port), cpu_s(pid)
                    requests.send(case.make(given), _REQUESTS, status=case.status, connection=case.connection)
                    requests.close()
                    per_s[name].append(_REQUESTS / max(0.01, cpu_s(pid) - before_s))
            return _report({name: statistics.median(values[1:]) for name, values in per_s.items()})
        finally:
            bare.__exit__(None, None, None)
            process.__exit__(None, None, None)


def _report(per_s: dict[str, float]) -> int:
    ratios = {bound.case: (bound, per_s[bound.case] / per_s[bound.other]) for bound in BOUNDS}
    rows, missed = [], 0
    for name, value in per_s.items():
        row = [name, f"{value:,.0f}", f"{1e6 / value:,.0f} us", "", "", ""]
        if name in ratios:
            bound, ratio = ratios[name]
            row[3:] = [bound.other, f"{ratio:.2f}", f"at least {bound.ratio:g}"]
            missed |= ratio < bound.ratio
        rows.append(row)
    table(["", "answers per CPU-second", "CPU of one", "beside", "ratio", "target"], rows)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
