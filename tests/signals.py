"""Signals for the programs that tests start.

A child inherits that a signal is ignored, such as SIGINT in a background shell and SIGHUP under nohup, and a shell or
make cannot undo it for its own children. The programs that tests start must end on Ctrl-C as they do in a terminal.
Also here: how tests stop a program for a while.
"""

import os
import signal
from pathlib import Path
from typing import Final

_CHANGED_BY_PYTHON: Final = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these itself, and `subprocess` restores them in each child."""


def keep_ignored_signals_from_children() -> None:
    """Give each ignored signal a handler that does nothing: it stays without effect here, and exec resets it.

    Also lift a mask of blocked signals, which children inherit too.
    """
    for number in signal.valid_signals() - _CHANGED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number is signal.SIGCHLD else _do_nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def freeze(pid: int) -> None:
    """Stop a process (SIGSTOP) and return when none of its threads runs any more: on a busy machine that takes a while.

    Where there is no ``/proc``, return at once.
    """
    os.kill(pid, signal.SIGSTOP)
    while any(_runs(task) for task in Path(f"/proc/{pid}/task").glob("*/stat")):
        os.sched_yield()


def _runs(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "tTZX"
    except FileNotFoundError:  # the thread has ended
        return False


def _do_nothing(_number: int, _frame: object) -> None:
    pass
