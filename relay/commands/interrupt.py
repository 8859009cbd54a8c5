"""What Ctrl-C does while no work runs: in an import, say. Imports next to nothing, to be in force before all else."""

import os
import signal


def end_quietly_on_interrupt() -> None:
    """Let Ctrl-C end the process with status 130 and no word, wherever it is.

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
    os._exit(130)
