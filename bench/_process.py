"""What Linux reports about a process: CPU used, memory held, the core it may run on.

Reads ``/proc`` directly, which costs the observed process nothing. Linux only, as the relay's containers are.
"""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_OF_PROCESS: Final = 2
"""CPUCLOCK_SCHED: with it, a process's id is the clock of its CPU time (clock_getcpuclockid(3))."""
_CORES: Final = sorted(os.sched_getaffinity(0))
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """CPU seconds (user + system, all threads) that a process has used."""
    return time.clock_gettime(~pid << 3 | _OF_PROCESS)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process, and every child started in the block, on one core; on a machine with one core, that one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_CORES[core % len(_CORES)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_files(count: int) -> None:
    """Raise this process's limit of open files (children inherit it) to at least `count`.

    Raises:
        SystemExit: The system's hard limit is lower; says how to raise it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard < count:
        raise SystemExit(f"this benchmark needs {count} open files, the limit is {hard}; try: ulimit -Hn {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
