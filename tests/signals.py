"""Signals that this process was started to ignore, such as SIGINT in a background shell and SIGHUP under nohup.

A child inherits that a signal is ignored, and a shell or make cannot undo it for its own children. The programs that
tests start must end on Ctrl-C as they do in a terminal.
"""

import signal
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


def _do_nothing(_number: int, _frame: object) -> None:
    pass
