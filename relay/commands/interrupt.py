"""Handle Ctrl-C outside of a running command, for instance during imports. Has few imports, since it is used first."""

import os
import signal
import sys
import time

_PAUSE_S = 0.1
"""Ctrl-C also goes to make. GNU make 4.3 reports an error if the program ends before make has handled the signal."""


def interrupted_status() -> int:
    """Return the exit status of a command that Ctrl-C has ended.

    130, as shells expect. 0 for ``dev``, which ends in no other way: make would report any other status as an error.
    """
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument == "--config":
            next(arguments, None)
        elif not argument.startswith("-"):
            return 0 if argument == "dev" else 130
    return 130


def end_quietly_on_interrupt() -> None:
    """Make Ctrl-C end the process at once and without output.

    Uses a signal handler, since typer handles KeyboardInterrupt in its own way. Does nothing when the signal is
    ignored, as in background jobs of a shell.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, so that a running command can clean up."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    time.sleep(_PAUSE_S)
    os._exit(interrupted_status())
