"""What Ctrl-C does while no work runs: in an import, say. Imports next to nothing, to be in force before all else."""

import os
import signal
import sys
import time

_PAUSE_S = 0.1
"""Ctrl-C goes to make as well, and GNU make 4.3 stumbles over a program that has ended before it has taken note."""


def interrupted_status() -> int:
    """Return the exit status of a command that Ctrl-C has ended.

    130, as shells expect; 0 for ``dev``, which has no other end: make would call anything else an error.
    """
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument == "--config":
            next(arguments, None)
        elif not argument.startswith("-"):
            return 0 if argument == "dev" else 130
    return 130


def end_quietly_on_interrupt() -> None:
    """Let Ctrl-C end the process without a word, wherever it is.

    A handler, since typer makes of KeyboardInterrupt what it likes. Leaves alone what ignores the signal, as
    background jobs of a shell do.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, for whoever has something to clean up."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    time.sleep(_PAUSE_S)
    os._exit(interrupted_status())
